"""Two operators that live on two servers: a scout that finds companies, and a desk that rates them."""

from __future__ import annotations

from openvibe import node, operator, workflow


@operator(id="scout")
class Scout:
    company: str = ""
    rating: int = 0
    seen: str = ""

    @workflow(id="find", inputs=("company",), emits=("company_found",))
    class Find:
        @node
        def look(self, state, ctx):
            ctx.context.put("companies", f"{state['company']}/intel", {"size": len(state["company"])})
            return None

    @workflow(id="inquire", inputs=("company",))
    class Inquire:
        @node
        def ask(self, state, ctx):
            return {"rating": ctx.request("desk", "rating", {"company": state["company"]})["rating"]}

    @workflow(id="lost", inputs=("company",))
    class Lost:
        @node
        def ask(self, state, ctx):
            ctx.request("desk", "poetry", {"company": state["company"]})
            return None

    @workflow(id="stray", inputs=("company",))
    class Stray:
        @node
        def ask(self, state, ctx):
            ctx.request("nobody", "anything", {})
            return None


@operator(id="desk")
class Desk:
    company: str = ""
    rating: int = 0
    intel: dict = {}

    @workflow(id="file", trigger="event:scout.company_found", inputs=("company",))
    class File:
        @node
        def read(self, state, ctx):
            return {"intel": ctx.context.get("companies", f"{state['company']}/intel", {})}

    @workflow(id="rate", trigger="request:rating", inputs=("company",))
    class Rate:
        @node
        def rate(self, state):
            return {"rating": 10 * len(state["company"])}
