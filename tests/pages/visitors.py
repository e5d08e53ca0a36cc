"""LangGraph graphs that were brought as they are, each with a question of another shape; and an agent with a tool."""

from __future__ import annotations

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from openvibe import agent_node, node, operator, workflow

INBOX = [
    {
        "action_request": {"action": "send_email", "args": {"to": "dana@example.com"}},
        "config": {"allow_accept": True, "allow_edit": True, "allow_respond": True, "allow_ignore": True},
        "description": "Send this email?",
    }
]
MIDDLEWARE = {
    "action_requests": [{"name": "delete_rows", "args": {"table": "leads"}}, {"name": "notify", "args": {}}],
    "review_configs": [{"action_name": "delete_rows", "allowed_decisions": ["approve", "edit", "reject", "respond"]}],
}
APPROVAL = {"type": "tool_approval", "name": "transfer", "args": {"amount": 500}, "description": "Transfer?"}
PARTY = {
    "type": "object",
    "properties": {"guests": {"type": "integer"}, "place": {"type": "string"}},
    "required": ["guests", "place"],
}


class State(TypedDict, total=False):
    topic: str
    answer: Any


def asking(value: Any, schema: dict[str, Any] | None = None) -> Any:
    graph = StateGraph(State)
    graph.add_node("ask", lambda _: {"answer": interrupt(value, response_schema=schema)})
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"Rain in {city}"


@operator(id="visitors")
class Visitors:
    report: str = ""
    tries: int = 0

    @workflow(id="mail", graph=asking(INBOX))
    class Mail: ...

    @workflow(id="rows", graph=asking(MIDDLEWARE))
    class Rows: ...

    @workflow(id="transfer", graph=asking(APPROVAL))
    class Transfer: ...

    @workflow(id="question", graph=asking({"question": "What is it called?", "draft": "Feast"}))
    class Question: ...

    @workflow(id="party", graph=asking("Who comes?", PARTY))
    class Party: ...

    @workflow(id="think", inputs=("report",), capability="thought", listens=("baker.bread_ready",))
    class Think:
        @agent_node(tools=[weather])
        def advise(self, state):
            return {"system": "You advise.", "user": "Well?", "output_key": "report"}

    @workflow(id="notes", inputs=("report",))
    class Notes:
        @node
        def write(self, state, ctx):
            ctx.log("Wrote <it> down", lines=3)
            return {"report": "done"}
