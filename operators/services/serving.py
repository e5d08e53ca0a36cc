"""Who plays which operators: what this process holds the code of, and what living workers hold.

An operator whose text lies in the database brings no code: whoever shares the database holds it.
"""

from __future__ import annotations

from collections.abc import Iterable

from operators import definitions
from operators.models import Operator, Process
from operators.services import sources


def held() -> list[str]:
    """Return the ids of the operators whose code this process has."""
    return sorted(definition.spec.id for definition in definitions.from_code())


def holds(operator: Operator) -> bool:
    """Tell whether this process can play an operator."""
    sources.ready(operator)
    return definitions.registry.operator(operator.slug) is not None


def served(operator: Operator) -> bool:
    """Tell whether a living worker holds an operator."""
    workers = _workers()
    return bool(workers) and (bool(operator.source) or operator.slug in set().union(*workers))


def orphaned(operators: Iterable[Operator]) -> set[int]:
    """Return the keys of those operators that no living worker holds; none while no worker lives at all."""
    workers = _workers()
    known = set().union(*workers)
    return {operator.pk for operator in operators if workers and not operator.source and operator.slug not in known}


def complete() -> bool:
    """Tell whether living workers hold everything whose code this process has."""
    workers = _workers()
    return bool(workers) and set(held()) <= set().union(*workers)


def _workers() -> list[set[str]]:
    rows = Process.living().filter(kind=Process.Kind.WORKER).values_list("operators", flat=True)
    return [set(held) for held in rows]
