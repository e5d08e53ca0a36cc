"""A nurture sequence that lasts two weeks.

A fragment in the design, which leaves out the state fields and the bodies: here `engagement_score` and three texts are
the fields, and each `...` is replaced by a body; decorators, names and order are word for word.
"""
# ruff: noqa
# fmt: off

from openvibe import operator, workflow, llm_node, node, durable, human_in_the_loop, conditional
from datetime import timedelta

@operator(id="revenue_ops", name="Revenue Operations")
class RevenueOps:
    lead: str = ""
    assessment: str = ""
    touch: str = ""
    engagement_score: int = 0
    sales_review: str = ""
    evaluate: str = ""

    @workflow(id="nurture_sequence", trigger="event:lead.qualified")
    @durable(max_days=14)
    class NurtureSequence:

        @llm_node(model="sonnet")
        def assess_lead(self, state):
            return {"system": "You assess leads.", "user": f"Lead: {state['lead']}", "output_key": "assessment"}

        @llm_node(model="sonnet")
        def generate_touch(self, state):
            return {"system": "You write to leads.", "user": state["assessment"], "output_key": "touch"}

        @node
        def wait_for_engagement(self, state):
            """Temporal sleeps for 3 days, then checks engagement."""
            return {"wait_duration": timedelta(days=3)}

        @human_in_the_loop(
            timeout=timedelta(hours=24),
            prompt="Lead replied. Review and decide: continue or handoff?",
        )
        def sales_review(self, state):
            return {"touch": state["touch"]}

        @conditional(routes={
            "upgrade": lambda s: s["engagement_score"] > 70,
            "continue": lambda s: s["engagement_score"] > 30,
            "archive": lambda s: s["engagement_score"] <= 30,
        })
        def evaluate(self, state):
            return None
