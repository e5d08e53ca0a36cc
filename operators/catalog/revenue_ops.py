"""Revenue Operations: from a qualified lead to outreach that a person has approved."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from openvibe import human_in_the_loop, llm_node, node, operator, workflow
from operators.catalog import prompts


class Touch(TypedDict):
    """One message of an outreach sequence; `wait_days` counts from the touch before it."""

    touch: Annotated[int, Field(ge=1, le=20)]
    channel: Literal["email", "linkedin", "phone"]
    subject: str
    body: str
    wait_days: Annotated[int, Field(ge=0, le=60)]


Sequence = Annotated[list[Touch], Field(min_length=1, max_length=10)]


@operator(
    id="revenue_ops",
    name="Revenue Operations",
    owner="VP Sales",
    description="Turns qualified leads into conversations.",
)
class RevenueOps:
    contact_id: Annotated[str, Field(title="Contact", description="The contact's id in the CRM", max_length=200)] = ""
    buyer_profile: Annotated[
        str, Field(title="Buyer profile", description="Who the buyer is, in a few sentences", min_length=1)
    ]
    segment: Annotated[str, Field(title="Segment", max_length=200)] = "mid-market"
    research_notes: str = ""
    outreach_sequence: Annotated[list[Touch], Field(title="Outreach sequence")] = []
    personalized_sequence: Annotated[list[Touch], Field(title="Personalized sequence")] = []
    review_sequence: str = ""
    final_plan: dict[str, Any] = {}

    @workflow(
        id="engagement",
        trigger="event:self:lead_qualified",
        trigger_id="lead_qualified",
        inputs=("contact_id", "buyer_profile", "segment"),
        sample_input={
            "contact_id": "contact-1042",
            "buyer_profile": "Dana Reyes leads operations at a consulting firm of 180 people that has outgrown its "
            "spreadsheets and is comparing tools before the end of the quarter.",
            "segment": "consulting, 50 to 500 people",
        },
    )
    class Engagement:
        """Research a buyer, write outreach, have a person review it, and hand it over."""

        @llm_node(model="sonnet")
        def research_buyer(self, state):
            return {
                "system": prompts.text("revenue_ops/engagement_research"),
                "user": f"Segment: {state['segment']}\n\nBuyer:\n{state['buyer_profile']}",
                "output_key": "research_notes",
            }

        @llm_node(model="sonnet", output_format="json")
        def generate_sequence(self, state):
            return {
                "system": prompts.text("revenue_ops/engagement_sequence"),
                "user": f"Notes:\n{state['research_notes']}",
                "output_keys": {"outreach_sequence": Sequence},
                "fallback": lambda answer: {"outreach_sequence": [single_touch(answer)]},
            }

        @llm_node(model="haiku", output_format="json")
        def personalize(self, state):
            touches = state["outreach_sequence"]
            return {
                "system": prompts.text("revenue_ops/engagement_personalize"),
                "user": f"Research:\n{state['research_notes']}\n\nSequence:\n{json.dumps(touches, indent=2)}",
                "output_keys": {"personalized_sequence": Sequence},
                "fallback": lambda _: {"personalized_sequence": touches},
            }

        @human_in_the_loop(
            prompt="Send this outreach to the buyer?",
            timeout=timedelta(hours=24),
            edits=("personalized_sequence",),
        )
        def review_sequence(self, state):
            return {"personalized_sequence": state["personalized_sequence"]}

        @node
        def format(self, state):
            return {
                "final_plan": {
                    "contact_id": state["contact_id"],
                    "segment": state["segment"],
                    "sequence": state["personalized_sequence"],
                    "status": "ready",
                }
            }


def single_touch(text: str) -> Touch:
    """Return one email that carries an answer which was no sequence."""
    return Touch(touch=1, channel="email", subject="A thought for your team", body=text, wait_days=0)
