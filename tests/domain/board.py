"""An operator whose gates several people are asked at, and whose agent and node ask several at once."""

from __future__ import annotations

from datetime import timedelta

from openvibe import agent_node, human_in_the_loop, node, operator, remote_tool, workflow

HOUR = timedelta(hours=1)
PEOPLE = tuple(f"person{number}" for number in range(20))


@operator(id="board")
class Board:
    letter: str = "Dear all"
    review: str = ""
    answer: str = ""
    offers: dict = {}

    @workflow(id="all", inputs=("letter",))
    class All:
        @human_in_the_loop(prompt="Send it?", approvers=("alice", "finance"), timeout=HOUR)
        def review(self, state):
            return {"letter": state["letter"]}

        @node
        def send(self, state):
            return {"letter": "sent"}

    @workflow(id="passed_on", inputs=("letter",))
    class PassedOn:
        @human_in_the_loop(prompt="Send it?", approvers=("alice", "finance", "law"), timeout=HOUR, escalate_to="bob")
        def review(self, state):
            return {"letter": state["letter"]}

    @workflow(id="lenient", inputs=("letter",))
    class Lenient:
        @human_in_the_loop(prompt="Send it?", approvers=("alice", "bob"), timeout=HOUR, on_timeout="approve")
        def review(self, state):
            return {"letter": state["letter"]}

    @workflow(id="twins", inputs=("letter",))
    class Twins:
        @human_in_the_loop(prompt="Send it?", approvers=("finance", "finance", "finance"), quorum=2)
        def review(self, state):
            return {"letter": state["letter"]}

    @workflow(id="crowd", inputs=("letter",))
    class Crowd:
        @human_in_the_loop(prompt="Send it?", approvers=PEOPLE, quorum=10)
        def review(self, state):
            return {"letter": state["letter"]}

    @workflow(id="advised", inputs=("letter",))
    class Advised:
        @agent_node(tools=[remote_tool("read", description="Read a page."), remote_tool("ring", description="Ring.")])
        def advise(self, state):
            return {"system": "You judge.", "user": state["letter"], "output_key": "answer"}

    @workflow(id="buy", inputs=("letter",))
    class Buy:
        @node
        def ask(self, state, ctx):
            return {"offers": ctx.request_each(["north", "south"], "price", rule="any")}


def seller(name: str) -> type:
    @operator(id=name)
    class Seller:
        price: int = 0

        @workflow(id="quote", trigger="request:price", inputs=())
        class Quote:
            @node
            def quote(self, state):
                return {"price": len(name)}

    return Seller
