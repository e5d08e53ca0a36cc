"""OpenVibe: describe AI operators in Python, run them durably, see and correct what they do."""

from openvibe.errors import OpenVibeError, RunError, SetupError
from openvibe.primitives import conditional, human_in_the_loop, llm_node, node, operator, workflow

__all__ = [
    "OpenVibeError",
    "RunError",
    "SetupError",
    "conditional",
    "human_in_the_loop",
    "llm_node",
    "node",
    "operator",
    "workflow",
]
