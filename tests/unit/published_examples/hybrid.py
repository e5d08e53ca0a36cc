"""YAML extended with a Python handler.

A fragment in the design: only the import is added. The file that it loads is the YAML example, whose node `analyze` then
needs `output_key: analysis`, because that is the name under which the handler reads it.
"""
# ruff: noqa
# fmt: off

from openvibe import OperatorRuntime

# Load operators from YAML, extend with Python handlers
runtime = OperatorRuntime()
runtime.load("operators.yaml")

# Register custom logic handlers
@runtime.handler("company_intel", "research", "decide")
def decide(state):
    keywords = ["enterprise", "series"]
    priority = "high" if any(k in state["analysis"].lower() for k in keywords) else "normal"
    return {"decision": priority}
