"""Two operators that talk to each other, and a graph with branches that was brought as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from openvibe import Listen, agent_node, durable, human_in_the_loop, node, operator, remote_node, remote_tool, workflow

#: What the village's shop was asked to do, in order.
orders: list[str] = []
#: What an order does besides being noted; a test sets it.
accidents: list[Callable[[], Any]] = []


def order(what: str) -> dict[str, str]:
    orders.append(what)
    for accident in accidents:
        accident()
    return {"order": what}


@operator(id="baker")
class Baker:
    flour: int = 0
    loaves: int = 0
    price: str = ""
    receipt: dict = {}
    verdict: str = ""

    @workflow(id="bake", inputs=("flour",), emits=("bread_ready",))
    class Bake:
        @node
        def knead(self, state, ctx):
            ctx.context.put("companies", "village/flour", state["flour"])
            if state["flour"] > 100:
                ctx.emit("much.flour", {"flour": state["flour"]})
            return {"loaves": state["flour"] // 10}

    @workflow(id="ask", inputs=("loaves",))
    class Ask:
        @node
        def ask(self, state, ctx):
            answer = ctx.request("grocer", "price", {"loaves": state["loaves"], "noise": True})
            return {"price": answer["price"]}

    @workflow(id="ask_twice", inputs=("loaves",))
    class AskTwice:
        @node
        def ask(self, state, ctx):
            first = ctx.request("grocer", "price", {"loaves": state["loaves"]})
            second = ctx.request("grocer", "price", {"loaves": state["loaves"] + 1})
            return {"price": f"{first['price']}, {second['price']}"}

    @workflow(id="rest", inputs=("flour",))
    class Rest:
        @node
        def rise(self, state):
            return {"loaves": 1, "wait_duration": timedelta(days=2)}

        @node
        def bake(self, state):
            return {"loaves": state["loaves"] + 1}

    @workflow(id="buy", inputs=("flour",))
    class Buy:
        @node
        def buy(self, state, ctx):
            return {"receipt": ctx.effect("flour", lambda: order("flour"))}

    @workflow(id="awaited", inputs=("flour",))
    class Awaited:
        @node
        async def buy(self, state, ctx):
            await asyncio.sleep(0)
            ctx.log("Buying")
            ctx.context.put("companies", "village/bought", ctx.context.keys("companies"))
            return {"receipt": ctx.effect("flour", lambda: order("flour"))}

    @workflow(id="judged", inputs=("loaves",))
    class Judged:
        @human_in_the_loop(prompt="Good bread?", timeout=timedelta(hours=1), escalate_to="mayor", on_timeout="reject")
        def verdict(self, state):
            return {"loaves": state["loaves"]}

    @workflow(id="remote", inputs=("loaves",))
    class Remote:
        @remote_node(role="tasting", timeout=timedelta(hours=1))
        def taste(self, state):
            return {"task": {"loaves": state["loaves"]}, "output_key": "verdict"}

    @workflow(id="advised", inputs=("loaves",))
    class Advised:
        @agent_node(tools=[remote_tool("taste", description="Taste bread.")])
        def advise(self, state):
            return {"system": "You judge bread.", "user": "Is it good?", "output_key": "verdict"}

    @workflow(id="long", inputs=("loaves",))
    @durable(max_days=3)
    class Long:
        @human_in_the_loop(prompt="Still fresh?")
        def verdict(self, state):
            return {"loaves": state["loaves"]}

    @workflow(id="patient", inputs=("loaves",), timeout=timedelta(microseconds=1))
    class Patient:
        @node
        def first(self, state):
            return {"loaves": 1}

        @node
        def second(self, state):
            return {"loaves": 2}

    @workflow(id="hourly", inputs=("loaves",), timeout=timedelta(hours=1))
    class Hourly:
        @node
        def first(self, state):
            return {"loaves": state["loaves"] + 1}

        @node
        def second(self, state):
            return {"loaves": state["loaves"] + 1}

    @workflow(id="sleepless", inputs=("loaves",), checkpointed=False)
    class Sleepless:
        @node
        def first(self, state):
            return {"loaves": 1, "wait_duration": 5}

        @node
        def second(self, state):
            return {"loaves": 2}

    @workflow(id="forgetful", inputs=("loaves",), checkpointed=False)
    class Forgetful:
        @node
        def first(self, state):
            return {"loaves": state["loaves"] + 1}

        @node
        def second(self, state):
            return {"loaves": state["loaves"] + 1}


@operator(id="grocer")
class Grocer:
    loaves: int = 0
    price: str = ""
    sold: int = 0

    @workflow(id="sell", trigger="event:baker.bread_ready", inputs=("loaves",))
    class Sell:
        @node
        def sell(self, state, ctx):
            return {"sold": state["loaves"] + ctx.context.get("companies", "village/flour", 0)}

    @workflow(
        id="store",
        inputs=("loaves",),
        listens=(Listen("baker.much_flour", where={"flour": [200, 300]}, takes={"loaves": "flour"}),),
    )
    class Store:
        @node
        def store(self, state):
            return {"sold": state["loaves"]}

    @workflow(id="quote", trigger="request:price", inputs=("loaves",))
    class Quote:
        @node
        def quote(self, state):
            if state["loaves"] > 1000:
                raise ValueError("too much bread")
            return {"price": f"{state['loaves'] * 2} coins"}


class Two(TypedDict, total=False):
    left: str
    right: str


def _branching() -> Any:
    graph = StateGraph(Two)
    graph.add_node("left_gate", lambda _: {"left": interrupt("left?")})
    graph.add_node("right_gate", lambda _: {"right": interrupt("right?")})
    graph.add_edge(START, "left_gate")
    graph.add_edge(START, "right_gate")
    graph.add_edge("left_gate", END)
    graph.add_edge("right_gate", END)
    return graph


@operator(id="crossroads")
class Crossroads:
    @workflow(id="both", graph=_branching())
    class Both: ...
