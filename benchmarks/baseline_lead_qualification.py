"""Lead qualification by hand: what `revenue_ops.lead_qualification` costs without OpenVibe.

Bare LangGraph with the model vendor's SDK and the CRM's HTTP interface, written plainly and no longer than it needs to
be. It keeps to the same rules (prompts, weights, limits, what an unreadable answer means). It has no page, no timeline,
no trigger, no shared context, no events, no effects that are certain to happen once, and no figures of cost.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, TypedDict

import anthropic
import httpx
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

HAIKU, SONNET = "claude-haiku-4-5-20251001", "claude-sonnet-4-6"
ATTEMPTS = 3

ENRICHMENT = """
You prepare a lead for scoring. You get whatever is on record: fields of the CRM contact, what the lead told us, and
research on the company. Any of these may be missing.

Write one profile under these headings, with short lines:
- Person: name, role, seniority, part in a purchase.
- Company: what it does, industry, number of people, region.
- Signals: what the person did or said, with dates where there are any.
- Gaps: what a scorer would want to know and we do not.

Rules:
- Use only what you are given; put nothing under Person or Company that is not there.
- Where two sources disagree, give both and name them.
- At most 180 words.
"""

SCORING = """
You score sales leads. Our ideal customers are consulting firms of 50 to 500 people whose partners sell and deliver at
the same time and who have outgrown spreadsheets.

Give three scores from 0 to 100:
- `fit` (weighs 40 %): kind of firm, size, and whether this person can buy. 90 and more: a partner or operations head of
  a firm like that. 50: a neighbouring kind of firm, or the right firm and a junior person. Below 20: a student,
  a competitor, a vendor, or a firm that we cannot serve.
- `intent` (35 %): what the person did. 90: asked for a price or a demo. 60: came back to product pages or compared
  vendors. 30: read one article. 0: nothing known.
- `urgency` (25 %): what forces a decision. 90: a date within a quarter. 50: a project under way. 10: "some day".

Add `reasoning` (at most 80 words; name the two facts that moved the scores most) and `route`, which is where you would
send the lead: sales, nurture, education or disqualify.

What is not known scores low, not average. Do not round to tens where the facts say more.

Answer with JSON only, of the form {"fit": 0, "intent": 0, "urgency": 0, "reasoning": "", "route": ""}.
"""


class State(TypedDict, total=False):
    contact_id: str
    company_name: str
    lead_data: dict[str, Any]
    enriched_data: str
    score: dict[str, Any]
    parsed: bool
    lead_score: float
    route: str
    crm_updated: bool


def call_model(client: Any, *, system: str, user: str, model: str, temperature: float) -> str:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            response = client.messages.create(
                model=model,
                max_tokens=4096,
                extra_body={"temperature": temperature},  # the SDK types none, because its newest models refuse it
                system=system,
                messages=[{"role": "user", "content": user}],
            )
            return "".join(block.text for block in response.content if block.type == "text")
        except (anthropic.APIConnectionError, anthropic.RateLimitError, anthropic.InternalServerError):
            if attempt == ATTEMPTS:
                raise
            time.sleep(2**attempt)
    raise AssertionError("unreachable")


def parse_score(answer: str) -> dict[str, Any]:
    text = answer.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].removesuffix("```")
    score = json.loads(text)
    for name in ("fit", "intent", "urgency"):
        score[name] = float(score[name])
        if not 0 <= score[name] <= 100:
            raise ValueError(f"{name} is {score[name]}")
    return {name: score[name] for name in ("fit", "intent", "urgency", "reasoning", "route")}


def hubspot() -> httpx.Client | None:
    token = os.environ.get("HUBSPOT_TOKEN")
    base = os.environ.get("HUBSPOT_BASE_URL", "https://api.hubapi.com")
    return httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}) if token else None


def enrich(state: State, client: Any) -> dict[str, Any]:
    contact = {}
    crm = hubspot()
    if crm and state.get("contact_id"):
        with crm:
            response = crm.get(f"/crm/v3/objects/contacts/{state['contact_id']}")
            response.raise_for_status()
            contact = response.json()["properties"]
    known = {"company": state.get("company_name"), "lead": state.get("lead_data"), "contact": contact}
    user = json.dumps(known, indent=2)
    return {"enriched_data": call_model(client, system=ENRICHMENT, user=user, model=HAIKU, temperature=0.7)}


def score(state: State, client: Any) -> dict[str, Any]:
    user, answer = state["enriched_data"], ""
    for _ in range(ATTEMPTS):
        answer = call_model(client, system=SCORING, user=user, model=SONNET, temperature=0.3)
        try:
            return {"score": parse_score(answer), "parsed": True}
        except (ValueError, TypeError, KeyError) as error:
            user = f"{state['enriched_data']}\n\nYour last answer was:\n{answer}\n\nIt does not fit: {error}"
    zeros = {"fit": 0.0, "intent": 0.0, "urgency": 0.0, "reasoning": answer, "route": "education"}
    return {"score": zeros, "parsed": False}


def route(state: State) -> dict[str, Any]:
    given = state["score"]
    composite = round(0.40 * given["fit"] + 0.35 * given["intent"] + 0.25 * given["urgency"], 6)
    if state["parsed"] and given["fit"] < 20:
        chosen = "disqualify"
    elif composite >= 80:
        chosen = "sales"
    elif composite >= 50:
        chosen = "nurture"
    else:
        chosen = "education"
    return {"lead_score": composite, "route": chosen}


def update_crm(state: State) -> dict[str, Any]:
    crm = hubspot()
    if crm is None or not state.get("contact_id"):
        return {"crm_updated": False}
    properties = {"hs_lead_status": state["route"].upper(), "lead_score": state["lead_score"]}
    with crm:
        address = f"/crm/v3/objects/contacts/{state['contact_id']}"
        crm.patch(address, json={"properties": properties}).raise_for_status()
    return {"crm_updated": True}


def build(client: Any) -> Any:
    graph: Any = StateGraph(State)
    graph.add_node("enrich", lambda state: enrich(state, client))
    graph.add_node("score_lead", lambda state: score(state, client))
    graph.add_node("route_lead", route)
    graph.add_node("update_crm", update_crm)
    graph.add_edge(START, "enrich")
    graph.add_edge("enrich", "score_lead")
    graph.add_edge("score_lead", "route_lead")
    graph.add_edge("route_lead", "update_crm")
    graph.add_edge("update_crm", END)
    return graph.compile(checkpointer=InMemorySaver())


def qualify(lead: dict[str, Any], *, client: Any = None, thread_id: str = "lead") -> dict[str, Any]:
    graph = build(client or anthropic.Anthropic())
    result: dict[str, Any] = graph.invoke(lead, {"configurable": {"thread_id": thread_id}})
    return result
