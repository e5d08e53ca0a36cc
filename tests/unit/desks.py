"""Operators for the tests of the runtime."""

from datetime import timedelta

from openvibe import (
    RunError,
    human_in_the_loop,
    node,
    operator,
    workflow,
)


def desk(*bodies, **fields):
    """Return an operator `desk` with these workflow classes and fields (name → default), beside `letter`."""
    known = {"letter": "", "amount": 0, **fields}
    body = {"__annotations__": {name: type(value) for name, value in known.items()}, **known}
    return operator(id="desk")(type("Desk", (), {**body, **{item.__name__: item for item in bodies}}))


@workflow(id="write")
class Write:
    @node
    def draft(self, state):
        return {"letter": "Dear all"}


@workflow(id="ask")
class Ask:
    @node
    def draft(self, state):
        return {"letter": "Dear all"}

    @human_in_the_loop(prompt="Send it?", edits=("letter", "amount"))
    def review(self, state):
        return None

    @node
    def send(self, state):
        return {"letter": state["letter"] + ", sent"}


def told(events):
    return [f"{event.kind} {event.node_id}".strip() for event in events]


def timed(**options):
    @workflow(id="ask")
    class Timed:
        @human_in_the_loop(prompt="Send it?", timeout=timedelta(hours=24), **options)
        def review(self, state):
            return {}

    return desk(Timed, review="")


def speakers():
    @operator(id="sender")
    class Sender:
        topic: str = "bread"

        @workflow(id="say", emits=("said",))
        class Say:
            @node
            def speak(self, state, ctx):
                ctx.emit("begun", {"topic": state["topic"]})
                ctx.context.put("content", "topic", state["topic"])

    @operator(id="listener")
    class Listener:
        topic: str = ""
        known: str = ""

        @workflow(id="hear", trigger="event:sender.begun", listens=("sender.said",))
        class Hear:
            @node
            def hear(self, state, ctx):
                return {"known": ctx.context.get("content", "topic", "nothing")}

    return Sender, Listener


@workflow(id="double", capability="double")
class Double:
    @node
    def double(self, state):
        if state["amount"] < 0:
            raise RunError("No debts")
        return {"amount": state["amount"] * 2}
