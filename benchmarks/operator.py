"""The operator `bench`: workflows that do nothing, so that what is measured is OpenVibe itself."""

from __future__ import annotations

import time
from datetime import timedelta

from openvibe import human_in_the_loop, llm_node, node, operator, workflow

#: Longer than any measurement: whoever measures moves the deadlines.
NAP = timedelta(days=30)
#: Longer than a socket measurement takes.
HOLD_SECONDS = 40


@operator(id="bench", name="Benchmark")
class Bench:
    count: int = 0
    said: str = ""

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

    @workflow(id="eight", inputs=("count",), sample_input={"count": 0})
    class Eight:
        """Eight nodes in a row: with the workflow of four it tells what one step costs."""

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

        @node
        def fifth(self, state):
            return {"count": state["count"] + 1}

        @node
        def sixth(self, state):
            return {"count": state["count"] + 1}

        @node
        def seventh(self, state):
            return {"count": state["count"] + 1}

        @node
        def eighth(self, state):
            return {"count": state["count"] + 1}

    @workflow(id="nap", inputs=("count",), sample_input={"count": 0})
    class Nap:
        """A sleep between two nodes."""

        @node
        def lie_down(self, state):
            return {"count": state["count"] + 1, "wait_duration": NAP}

        @node
        def get_up(self, state):
            return {"count": state["count"] + 1}

    @workflow(id="talk", inputs=("count",), sample_input={"count": 0})
    class Talk:
        """Four questions to a model, one after the other."""

        @llm_node(model="gpt-4o-mini")
        def first(self, state):
            return {"user": "Do you hear me?", "output_key": "said"}

        @llm_node(model="gpt-4o-mini")
        def second(self, state):
            return {"user": "And now?", "output_key": "said"}

        @llm_node(model="gpt-4o-mini")
        def third(self, state):
            return {"user": "Still?", "output_key": "said"}

        @llm_node(model="gpt-4o-mini")
        def fourth(self, state):
            return {"user": "Good night.", "output_key": "said"}


OPERATORS = [Bench]
