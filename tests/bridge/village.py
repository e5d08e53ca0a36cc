"""Operators that are asked, and that ask, for the tests of requests."""

from __future__ import annotations

from collections.abc import Iterator

from openvibe import agent_node, human_in_the_loop, node, operator, remote_tool, workflow
from operators import definitions
from operators.models import Operator, Project
from operators.services import compiled, registration


@operator(id="grocer")
class Grocer:
    loaves: int = 0
    price: str = ""

    @workflow(id="quote", trigger="request:price", inputs=("loaves",))
    class Quote:
        @node
        def quote(self, state):
            if state["loaves"] > 1000:
                raise ValueError("too much bread")
            return {"price": f"{state['loaves'] * 2} coins"}

    @workflow(id="ponder", capability="advice", inputs=("loaves",))
    class Ponder:
        @human_in_the_loop(prompt="Is it good?")
        def gate(self, state):
            return {"loaves": state["loaves"]}


@operator(id="baker")
class Baker:
    loaves: int = 0
    price: str = ""

    @workflow(id="ask", inputs=("loaves",))
    class Ask:
        @node
        def ask(self, state, ctx):
            return {"price": ctx.request("grocer", "price", {"loaves": state["loaves"]})["price"]}


@operator(id="critic")
class Critic:
    loaves: int = 0
    verdict: str = ""
    after: str = ""

    @workflow(id="judge", inputs=("loaves",), emits=("judged",))
    class Judge:
        @agent_node(tools=[remote_tool("taste", description="Taste bread.")])
        def advise(self, state):
            return {"system": "You judge bread.", "user": f"Are {state['loaves']} good?", "output_key": "verdict"}

        @node
        def afterwards(self, state):
            return {"after": "went on"}


@operator(id="crier")
class Crier:
    instruction: str = ""
    cried: str = ""

    @workflow(id="cry", inputs=("instruction",))
    class Cry:
        @node
        def cry(self, state):
            return {"cried": state["instruction"].upper()}


@operator(id="chief")
class Chief:
    report: str = ""

    @workflow(id="spread")
    class Spread:
        @agent_node(tools=[remote_tool("ask_expert", description="Ask.", parameters={
            "type": "object", "required": ["expert_profile", "question"], "properties": {
                "expert_profile": {"const": "crier"}, "question": {"const": "what news"}}})])  # fmt: skip
        def order(self, state):
            return {"system": "You spread news.", "user": "Spread it.", "output_key": "report"}


def served(project: Project, cls: type) -> Iterator[dict[str, Operator]]:
    """Serve an operator for as long as the caller goes on, which is told its row by its id."""
    definition = definitions.registry.register(cls)
    yield {definition.spec.id: registration.register(project, definition)}
    definitions.registry.remove(definition.spec.id)
    compiled.workflow.cache_clear()
