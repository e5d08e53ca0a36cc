"""An operator whose model calls cost something, and a model that has a price."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from openvibe import Budget, configuration, llm_node, node, operator, workflow
from openvibe.registry import define
from operators import definitions
from operators.models import Operator, Project
from operators.services import compiled, registration
from tests.unit.players import Priced


@operator(id="spender", budget=Budget(run=0.1, month=100))
class Spender:
    letter: str = ""
    sent: bool = False

    @workflow(id="write", inputs=())
    class Write:
        @llm_node(model="haiku")
        def draft(self, state):
            return {"user": "Write.", "output_key": "letter"}

        @llm_node(model="haiku")
        def polish(self, state):
            return {"user": "Polish.", "output_key": "letter"}

        @node
        def send(self, state):
            return {"sent": True}


@contextmanager
def spending(project: Project) -> Iterator[Operator]:
    """Register the operator, and let each call of a model cost ten cents."""
    before = configuration.current().llm
    definitions.provider.cache_clear()
    configuration.configure(llm=Priced(["words"] * 100, Decimal("0.10")))
    made = definitions.registry.add(define(Spender))
    try:
        yield registration.register(project, made)
    finally:
        definitions.registry.remove("spender")
        compiled.workflow.cache_clear()
        configuration.configure(llm=before)
        definitions.provider.cache_clear()
