"""An operator whose gates stand before money is paid: one for anybody, one at which certain people are asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from openvibe import human_in_the_loop, node, operator, workflow

HOUR = timedelta(hours=1)
#: An amount at which the gate itself breaks, unless its luck has been mended.
UNLUCKY = 13
luck = {"mended": False}
#: What was done to the outside world, in order.
done: list[Any] = []


class Sum(TypedDict, total=False):
    amount: int


def _graph() -> Any:
    graph = StateGraph(Sum)
    graph.add_node("ask", lambda state: {"amount": interrupt("Pay?")})
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph


@operator(id="treasury")
class Treasury:
    amount: int = 0
    payee: str = ""

    @workflow(id="pay", inputs=("amount",))
    class Pay:
        @node
        def prepare(self, state, ctx):
            ctx.effect("reserve", lambda: done.append("reserved"))
            return {"payee": "ada"}

        @human_in_the_loop(prompt="Pay?", timeout=HOUR, on_timeout="reject", escalate_to="bob")
        def judged(self, state):
            if state["amount"] == UNLUCKY and not luck["mended"]:
                raise RuntimeError("an unlucky amount")
            return {"amount": state["amount"]}

        @node
        def pay(self, state):
            done.append((state["payee"], state["amount"]))

    @workflow(id="grant", inputs=("amount",))
    class Grant:
        @human_in_the_loop(prompt="Grant?", approvers=("alice", "bob"), timeout=HOUR, on_timeout="approve")
        def agreed(self, state):
            return {"amount": state["amount"]}

        @node
        def note(self, state):
            return {"payee": "ada"}

        @node
        def pay(self, state, ctx):
            ctx.effect("pay", lambda: done.append((state["payee"], state["amount"])))

    @workflow(id="doubt", inputs=("amount",))
    class Doubt:
        @node
        def wire(self, state, ctx):
            ctx.effect("wire", lambda: done.append("wired"))

    @workflow(id="graph", graph=_graph())
    class Graph: ...
