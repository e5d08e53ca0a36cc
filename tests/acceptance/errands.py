"""An operator whose work is done by whoever takes it over the bus."""

from datetime import timedelta

from openvibe import node, operator, remote_node, workflow


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
