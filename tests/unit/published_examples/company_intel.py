"""Company Intelligence in decorator mode.

A fragment in the design: the import line is added, and the `...` of the node is replaced by a body.
"""
# ruff: noqa
# fmt: off

from openvibe import operator, workflow, llm_node

@operator(id="company_intel", name="Company Intelligence")
class CompanyIntel:
    company_name: str = ""
    research: str = ""

    @workflow(id="research", trigger="on_demand")
    class Research:
        @llm_node(model="haiku")
        def research(self, state):
            return {"system": "You research.", "user": f"Company: {state['company_name']}", "output_key": "research"}
