"""Operators as they pass a lead on, without models: three live on one server, two on another."""

from __future__ import annotations

from openvibe import node, operator, workflow


@operator(id="revenue_desk")
class RevenueDesk:
    company: str = ""
    industry: str = ""
    rating: int = 0

    @workflow(id="qualify", trigger="webhook:hubspot_new_lead", inputs=("company",))
    class Qualify:
        @node
        def enrich(self, state, ctx):
            found = ctx.request("intel_desk", "research", {"company": state["company"]})
            return {"industry": found["industry"]}

        @node
        def rate(self, state, ctx):
            ctx.context.put("leads", f"{state['company']}/qualification", {"rating": 85})
            ctx.emit("lead_qualified", {"company": state["company"], "rating": 85})
            return {"rating": 85}


@operator(id="intel_desk")
class IntelDesk:
    company: str = ""
    industry: str = ""

    @workflow(id="research", trigger="request:research", inputs=("company",))
    class Research:
        @node
        def look(self, state):
            return {"industry": f"industry of {state['company']}"}


@operator(id="success_desk")
class SuccessDesk:
    company: str = ""
    prepared: bool = False

    @workflow(id="prepare", trigger="event:revenue_desk.lead_qualified", inputs=("company",))
    class Prepare:
        @node
        def prepare(self, state):
            return {"prepared": True}


@operator(id="content_desk")
class ContentDesk:
    company: str = ""
    known: dict = {}

    @workflow(id="personalise", trigger="event:revenue_desk.lead_qualified", inputs=("company",))
    class Personalise:
        @node
        def write(self, state, ctx):
            return {"known": ctx.context.get("leads", f"{state['company']}/qualification", {})}


@operator(id="market_desk")
class MarketDesk:
    company: str = ""
    note: str = ""

    @workflow(id="watch", trigger="event:revenue_desk.lead_qualified", inputs=("company",))
    class Watch:
        @node
        def note(self, state):
            return {"note": state["company"]}
