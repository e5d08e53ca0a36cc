"""An operator to experiment with, and short words for starting, playing and reading runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import orjson
from django.conf import settings

from openvibe import node, operator, workflow
from openvibe.registry import define
from operators import definitions
from operators.models import Event, Operator, Project, Run
from operators.services import compiled, execution, intake, registration

Act = Callable[[], Any]
#: What happens while the lab's nodes `meddle` and `write` are played; a test sets it.
meddling: list[Act] = []

#: An operator as somebody registers it over REST.
GREETER = """
operators:
  - id: greeter
    workflows:
      - id: greet
        nodes:
          - id: say
            type: logic
            set: {greeting: '"hello"'}
    fields: {greeting: str}
"""


@operator(id="lab", name="Lab")
class Lab:
    number: int = 0
    text: str = ""

    @workflow(id="four")
    class Four:
        @node
        def one(self, state):
            return None

        @node
        def two(self, state):
            return None

        @node
        def three(self, state):
            return None

        @node
        def four(self, state):
            return None

    @workflow(id="meddled")
    class Meddled:
        @node
        def before(self, state):
            return {"number": state["number"] + 1}

        @node
        def meddle(self, state):
            for act in meddling:
                act()
            return {"number": state["number"] + 1}

        @node
        def after(self, state):
            return {"number": state["number"] + 1}

    @workflow(id="nap")
    class Nap:
        @node
        def lie_down(self, state):
            return {"wait_duration": timedelta(days=1)}

    @workflow(id="large")
    class Large:
        @node
        def write(self, state):
            for act in meddling:
                act()
            return {"text": "x" * 40_000}


def started(operator: Operator, slug: str, **input: Any) -> Run:
    return intake.request(operator.workflows.get(slug=slug), input=input, actor=None)


def played(run: Run) -> Run:
    execution.perform(run.id)
    return Run.objects.select_related("operator", "workflow").get(pk=run.pk)


def kinds(run: Run) -> list[str]:
    return list(thread(run).values_list("kind", flat=True))


def thread(run: Run) -> Any:
    return Event.objects.after(run.project_id, f"t_{run.id}", 0)


def rung() -> list[str]:
    """Return the ids that the bells in the embedded queue carry, and take them out."""
    found = []
    for file in sorted((settings.OPENVIBE.home / "queue").glob("*/*.msg"), key=lambda file: file.stat().st_mtime_ns):
        if orjson.loads(file.read_bytes())["headers"]["task"] == "operators.perform":
            found.append(orjson.loads(file.read_bytes())["headers"]["argsrepr"].strip("[]'"))
        file.unlink()
    return found


@contextmanager
def served(project: Project, cls: type) -> Iterator[Operator]:
    """Serve an operator of a test's own until the block ends."""
    definition = definitions.registry.add(define(cls))
    try:
        yield registration.register(project, definition)
    finally:
        definitions.registry.remove(definition.spec.id)
        compiled.workflow.cache_clear()
