"""The operator `bench`: workflows that do nothing, so that what is measured is OpenVibe itself."""

from __future__ import annotations

import time

from openvibe import human_in_the_loop, node, operator, workflow

#: Longer than a socket measurement takes.
HOLD_SECONDS = 40


@operator(id="bench", name="Benchmark")
class Bench:
    count: int = 0

    @workflow(id="linear", inputs=("count",), sample_input={"count": 0})
    class Linear:
        """Four nodes in a row."""

        @node
        def first(self, state):
            return {"count": state["count"] + 1}

        @node
        def second(self, state):
            return {"count": state["count"] + 1}

        @node
        def third(self, state):
            return {"count": state["count"] + 1}

        @node
        def fourth(self, state):
            return {"count": state["count"] + 1}

    @workflow(id="gated", inputs=("count",), sample_input={"count": 0})
    class Gated:
        """A gate between two nodes."""

        @node
        def before(self, state):
            return {"count": state["count"] + 1}

        @human_in_the_loop(prompt="Go on?")
        def gate(self, state):
            return {"count": state["count"]}

        @node
        def after(self, state):
            return {"count": state["count"] + 1}

    @workflow(id="held", inputs=("count",), sample_input={"count": 0})
    class Held:
        """A step that stays open while its page is watched."""

        @node
        def hold(self, state):
            time.sleep(HOLD_SECONDS)
            return {"count": state["count"] + 1}


OPERATORS = [Bench]
