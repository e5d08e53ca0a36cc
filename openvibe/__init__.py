"""OpenVibe: describe AI operators in Python, run them durably, see and correct what they do."""

from openvibe.configuration import configure
from openvibe.ctx import NOT_DONE, Ctx
from openvibe.errors import OpenVibeError, RunError, SetupError, ToolError
from openvibe.primitives import (
    agent_node,
    conditional,
    durable,
    human_in_the_loop,
    llm_node,
    node,
    operator,
    remote_node,
    workflow,
)
from openvibe.runtime import OperatorRuntime
from openvibe.server import serve
from openvibe.specs import Retry
from openvibe.subscriptions import Listen
from openvibe.tools import remote_tool

__all__ = [
    "NOT_DONE",
    "Ctx",
    "Listen",
    "OpenVibeError",
    "OperatorRuntime",
    "Retry",
    "RunError",
    "SetupError",
    "ToolError",
    "agent_node",
    "conditional",
    "configure",
    "durable",
    "human_in_the_loop",
    "llm_node",
    "node",
    "operator",
    "remote_node",
    "remote_tool",
    "serve",
    "workflow",
]
