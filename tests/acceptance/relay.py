"""Two operators that live on two servers: a herald that tells of a deal, and a thinker that asks a model about it."""

from __future__ import annotations

from openvibe import llm_node, node, operator, workflow
from openvibe.contrib import hubspot, slack


@operator(id="herald")
class Herald:
    deal: str = ""

    @workflow(id="tell", inputs=("deal",), emits=("deal_found",))
    class Tell:
        @node
        def look(self, state, ctx):
            crm, chat = hubspot.from_environment(), slack.from_environment()
            assert crm is not None
            assert chat is not None
            crm.contact(state["deal"])
            ctx.effect("tell", lambda: chat.post("C1", state["deal"]))
            return None


@operator(id="thinker")
class Thinker:
    deal: str = ""
    thought: str = ""

    @workflow(id="think", trigger="event:herald.deal_found", inputs=("deal",))
    class Think:
        @llm_node(model="gpt-4o-mini")
        def think(self, state):
            return {"user": state["deal"], "output_key": "thought"}
