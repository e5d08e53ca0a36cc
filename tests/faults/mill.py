"""The operator that the storms blow at: steps, gates, timers, branches, a request, a model, and acts upon a world.

People and agents are asked together, one after the other, and in branches of a graph that was brought as it is.

The world is a file that every act appends one line to.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from openvibe import NOT_DONE, conditional, human_in_the_loop, llm_node, node, operator, remote_node, workflow

#: Names the file of acts; the site that plays the mill has it in its environment.
WORLD = "OPENVIBE_FAULTS_WORLD"
#: How long an act takes before and after it is in the world, in seconds: time to be killed in.
BEFORE, AFTER = 0.15, 0.15
#: How often a person may send the grain through once more.
MOST_ROUNDS = 3
#: Who is asked together, and how many of them have to agree.
ELDERS, QUORUM = ("ann", "ben", "cem"), 2


def act(ctx: Any, name: str) -> dict[str, str]:
    """Do something to the world: one line of the file."""
    key = ctx.idempotency_key(name)
    time.sleep(BEFORE)
    line = {"run": ctx.run_id, "step": ctx.step_id, "node": ctx.node, "name": name, "key": key, "pid": os.getpid()}
    # One write of one line is whole, whoever else appends and whenever this process dies.
    descriptor = os.open(os.environ[WORLD], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (json.dumps(line) + "\n").encode())
    os.close(descriptor)
    time.sleep(AFTER)
    return {"key": key}


def acts(path: Path) -> list[dict[str, Any]]:
    """Return what the world remembers."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def remembered(ctx: Any, name: str) -> Any:
    """Ask the world whether an act of this step happened."""
    key = ctx.idempotency_key(name)
    found = [item for item in acts(Path(os.environ[WORLD])) if item["key"] == key]
    return {"key": key} if found else NOT_DONE


class Batch(TypedDict, total=False):
    """What the branches of a blend have in common. Every turn of a node adds a word that no other turn adds."""

    grains: int
    turns: Annotated[list[str], add]
    left: str
    right: str


def blending() -> Any:
    """Return a graph: a gate in each of two branches, work in the third, and all of it put together."""
    graph = StateGraph(Batch)
    for name in ("left", "right"):
        graph.add_node(name, _side(name))
    for name in ("wheel", "mix"):
        graph.add_node(name, lambda _, name=name: _turned(name))
    for name in ("left", "right", "wheel"):
        graph.add_edge(START, name)
    graph.add_edge(["left", "right", "wheel"], "mix")
    return graph


def _side(name: str) -> Callable[[Batch], dict[str, Any]]:
    asked = {"action_request": {"action": name, "args": {}}, "config": {"allow_accept": True, "allow_ignore": True}}

    def side(_: Batch) -> dict[str, Any]:
        [answer] = interrupt([asked])
        return {name: answer["type"], **_turned(name)}

    return side


def _turned(name: str) -> dict[str, Any]:
    time.sleep(BEFORE)
    return {"turns": [f"{name} {os.getpid()} {time.time_ns()}"]}


@operator(id="mill", name="Mill")
class Mill:
    sort: str = "fine"
    seconds: float = 0.2
    rounds: int = 0
    passed: list[str] = []
    taste: str = ""
    review: str = ""
    ripe: str = ""
    price: str = ""
    sacks: int = 0
    agreed: str = ""
    carried: dict = {}

    @workflow(id="grind", inputs=("sort", "seconds"), emits=("flour_ready",))
    class Grind:
        """Acts, a rest, a model, two branches, a gate that may send everything round again."""

        @node
        def weigh(self, state, ctx):
            name = f"weigh/{state['rounds']}"
            ctx.effect(name, lambda: act(ctx, name), reconcile=lambda: remembered(ctx, name))
            return {"passed": [*state["passed"], "weigh"], "rounds": state["rounds"] + 1}

        @node
        def rest(self, state):
            return {"passed": [*state["passed"], "rest"], "wait_duration": timedelta(seconds=state["seconds"])}

        @llm_node(model="haiku")
        def tasting(self, state):
            return {"system": "You taste flour.", "user": f"Round {state['rounds']}", "output_key": "taste"}

        @conditional(routes={"fine": lambda s: s["sort"] == "fine", "coarse": lambda s: True})
        def sift(self, state):
            return {"passed": [*state["passed"], "sift"]}

        @node
        def fine(self, state, ctx):
            name = f"fine/{state['rounds']}"
            ctx.effect(name, lambda: act(ctx, name))
            return {"passed": [*state["passed"], "fine"]}

        @node
        def coarse(self, state):
            return {"passed": [*state["passed"], "coarse"]}

        @human_in_the_loop(prompt="Good flour?", decisions=("approve", "again", "reject"))
        def review(self, state):
            return {"taste": state["taste"], "rounds": state["rounds"]}

        @conditional(
            routes={
                "regrind": lambda s: s["review"] == "again" and s["rounds"] < MOST_ROUNDS,
                "go_on": lambda s: True,
            }
        )
        def verdict(self, state):
            return {"passed": [*state["passed"], "verdict"]}

        @node(next="weigh")
        def regrind(self, state):
            return {"passed": [*state["passed"], "regrind"]}

        @node
        def pack(self, state, ctx):
            ctx.effect("pack", lambda: act(ctx, "pack"))
            return {"passed": [*state["passed"], "pack"]}

    @workflow(id="age", inputs=("seconds",))
    class Age:
        """A request to another run, and a gate that people and its deadline race for."""

        @node
        def ask(self, state, ctx):
            answer = ctx.request("mill", "price", {"seconds": state["seconds"]})
            return {"passed": [*state["passed"], "ask"], "price": answer["price"]}

        @human_in_the_loop(prompt="Ripe?", decisions=("ripe", "raw"), timeout=timedelta(seconds=1.5), on_timeout="ripe")
        def ripe(self, state):
            return {"price": state["price"]}

        @node
        def sell(self, state, ctx):
            ctx.effect("sell", lambda: act(ctx, "sell"))
            return {"passed": [*state["passed"], "sell"]}

    @workflow(id="haul", inputs=("sacks",))
    class Haul:
        """A gate that most of the elders decide, and work for whoever takes it elsewhere."""

        @human_in_the_loop(prompt="Send it?", approvers=ELDERS, quorum=QUORUM)
        def agreed(self, state):
            return {"sacks": state["sacks"]}

        @remote_node(role="carting")
        def cart(self, state):
            return {"task": {"sacks": state["sacks"]}, "output_key": "carried"}

        @node
        def unload(self, state, ctx):
            ctx.effect("unload", lambda: act(ctx, "unload"))
            return {"passed": [*state["passed"], "unload"]}

    @workflow(id="blend", graph=blending())
    class Blend:
        """Branches that wait and work at the same time."""

    @workflow(id="quote", trigger="request:price", inputs=("seconds",))
    class Quote:
        """Answers requests."""

        @node
        def quote(self, state, ctx):
            ctx.effect("quote", lambda: act(ctx, "quote"))
            return {"price": f"{state['seconds']} coins"}

    @workflow(id="store", trigger="event:mill.flour_ready", inputs=("sort",))
    class Store:
        """Hears of flour."""

        @node
        def shelve(self, state, ctx):
            ctx.effect("shelve", lambda: act(ctx, "shelve"))
            return {"passed": ["shelve"]}


OPERATORS = [Mill]
