"""Operators whose work is done by whoever takes it over the bus, and whose tools are performed there."""

from datetime import timedelta

from openvibe import agent_node, node, operator, remote_node, remote_tool, workflow


@operator(id="errands", name="Errands")
class Errands:
    wish: str = ""
    result: dict = {}
    report: str = ""

    @workflow(id="run_errand", trigger="on_demand", inputs=("wish",), sample_input={"wish": "say hello"})
    class RunErrand:
        @remote_node(role="coding", timeout=timedelta(minutes=2))
        def work(self, state):
            return {"task": {"chunk_id": "c1", "description": state["wish"]}, "output_key": "result"}

        @node
        def tell(self, state):
            return {"report": state["result"]["summary"]}


def selling(tool):
    """Return a workflow whose agent calls one tool elsewhere."""
    weight = {"type": "integer", "minimum": 1, "maximum": 5000}
    scale = remote_tool(
        tool,
        description="Weigh goods: how many grams has each?",
        parameters={
            "type": "object",
            "properties": {"grams": {"type": "array", "items": weight}},
            "required": ["grams"],
        },
        timeout=timedelta(minutes=2),
    )

    class Sell:
        @agent_node(tools=[scale])
        def advise(self, state):
            return {"system": "You sell flour.", "user": state["wish"], "output_key": "advice"}

    return workflow(id=f"sell_by_{tool}", inputs=("wish",))(Sell)


@operator(id="grocers", name="Grocers")
class Grocers:
    wish: str = ""
    advice: str = ""

    SellByPython = selling("scale_python")
    SellByJavascript = selling("scale_javascript")
