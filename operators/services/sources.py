"""Operators that somebody registered over REST: their YAML lies in the database, and every process reads it there.

A process notices a change by the hash that an operator's row bears, which whoever starts or plays a run has at hand; so
nothing has to be asked for while nothing changes. Such an operator brings no code, no files and no tools of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db import IntegrityError, transaction

from openvibe import config
from openvibe.errors import SetupError
from openvibe.registry import OperatorDefinition
from operators import definitions
from operators.errors import DefinedInCode, Misfit, OperatorExists, OperatorInUse
from operators.models import Operator, OperatorSource, Project, Run
from operators.services import registration

logger = logging.getLogger(__name__)

#: How a mistake names its place.
NAME = "operators.yaml"
HINT = (
    "An operator that is registered over REST brings no code, no files and no tools: use llm, gate, conditional and "
    "remote nodes, and logic nodes with `set:`"
)
_PLACE = re.compile(rf"{re.escape(NAME)}:(\d+):(\d+):(?: ([\w\[\].]+):)? (.*)", re.DOTALL)
_lock = threading.Lock()


def ready(operator: Operator) -> None:
    """Make sure that this process knows an operator as the database describes it."""
    if operator.source != definitions.from_database.get(operator.slug, ""):
        refresh()


def refresh() -> None:
    """Read what has changed in the database since this process last looked."""
    with _lock:
        stored = dict(OperatorSource.objects.values_list("slug", "digest"))
        known = definitions.from_database
        if stored == known:
            return
        for slug in [slug for slug in known if slug not in stored]:
            definitions.registry.remove(slug)
            del known[slug]
        changed = [slug for slug, digest in stored.items() if known.get(slug) != digest]
        for source in OperatorSource.objects.filter(slug__in=changed):
            _read(source)


def _read(source: OperatorSource) -> None:
    known = definitions.from_database
    if source.slug not in known and definitions.registry.operator(source.slug):
        logger.warning("Operator %s is defined in code too, which goes before what was registered", source.slug)
        return
    try:
        definition = read(source.text)
    except Misfit as error:
        logger.error("Operator %s was registered and cannot be read any more: %s", source.slug, error)
        return
    definitions.registry.remove(source.slug)
    definitions.registry.add(definition)
    known[source.slug] = source.digest


def read(text: str) -> OperatorDefinition:
    """Return the one operator that a text describes. Raises `Misfit` naming line, column and path."""
    try:
        found = config.parse(_yaml(text), name=NAME).definitions()
    except SetupError as error:
        raise Misfit(str(error), errors=[_fault(line) for line in str(error).splitlines()], hint=HINT) from error
    except RecursionError as error:
        raise Misfit("The text has too many levels") from error
    if len(found) != 1:
        message = f"holds {len(found)} operators; register one at a time"
        raise Misfit(f"The text {message}", errors=[{"field": "operators", "message": message}])
    return found[0]


def add(project: Project, text: str, *, actor: AbstractUser) -> tuple[Operator, bool]:
    """Register an operator, and tell whether it is new: the same text again changes nothing.

    Raises:
        Misfit: the text has a mistake.
        OperatorExists: the operator's id is taken, by another text or by code.
    """
    definition = read(text)
    slug = definition.spec.id
    refresh()
    if known := OperatorSource.objects.filter(project=project, slug=slug, digest=_digest(text)).first():
        return Operator.objects.get(project=project, slug=known.slug), False
    if slug in definitions.from_database or definitions.registry.operator(slug):
        raise OperatorExists(
            f"There is an operator {slug!r} already; take another id, or change one that you have registered with "
            f"PUT /v1/operators/{slug}"
        )
    try:
        with transaction.atomic():
            source = OperatorSource(project=project, slug=slug)
            return _write(source, text, definition, actor=actor), True
    except IntegrityError as error:
        raise OperatorExists(f"Somebody else has registered {slug!r} a moment ago") from error


@transaction.atomic
def replace(operator: Operator, text: str, *, actor: AbstractUser) -> Operator:
    """Change an operator that was registered; runs that wait go on with the new text.

    Raises:
        Misfit: the text has a mistake, or describes an operator of another id.
        DefinedInCode: the operator comes from code.
    """
    source = _source(operator)
    definition = read(text)
    if definition.spec.id != operator.slug:
        message = f"is {definition.spec.id!r}, and the address says {operator.slug!r}"
        raise Misfit(f"The id {message}", errors=[{"field": "operators[0].id", "message": message}])
    return _write(source, text, definition, actor=actor)


@transaction.atomic
def remove(operator: Operator) -> None:
    """Remove an operator that was registered. If it has runs, these stay readable.

    Raises:
        DefinedInCode: the operator comes from code.
        OperatorInUse: it has runs that have not ended.
    """
    source = _source(operator)
    active = Run.objects.active().filter(operator=operator).count()
    if active:
        raise OperatorInUse(
            f"{operator.slug!r} has {active} runs that have not ended; let them end or cancel them", active_runs=active
        )
    source.delete()
    if Run.objects.filter(operator=operator).exists():
        operator.workflows.update(retired=True)
        Operator.objects.filter(pk=operator.pk).update(retired=True, source="")
    else:
        operator.delete()
    transaction.on_commit(refresh)


def _source(operator: Operator) -> OperatorSource:
    Operator.objects.select_for_update().get(pk=operator.pk)
    source = OperatorSource.objects.filter(project_id=operator.project_id, slug=operator.slug).first()
    if source is None or not operator.source:
        raise DefinedInCode(f"{operator.slug!r} comes from code or a file of this server; change it there")
    return source


def _write(source: OperatorSource, text: str, definition: OperatorDefinition, *, actor: AbstractUser) -> Operator:
    source.text, source.digest, source.author = text, _digest(text), actor.get_username()
    source.save()
    operator = registration.register(source.project, definition, source=source.digest)
    transaction.on_commit(refresh)
    return operator


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _yaml(text: str) -> str:
    """Return JSON as YAML reads it: tabs between its parts, and halves of characters, are no YAML."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except ValueError:
        return text


def _fault(line: str) -> dict[str, Any]:
    found = _PLACE.match(line)
    if found is None:
        return {"field": "", "message": line}
    at, column, path, message = found.groups()
    return {"field": path or "", "message": message, "line": int(at), "column": int(column)}
