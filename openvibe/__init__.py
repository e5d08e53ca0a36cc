"""OpenVibe: describe AI operators in Python, run them durably, see and correct what they do."""

import importlib
from typing import TYPE_CHECKING, Any

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
from openvibe.server import serve
from openvibe.specs import Budget, Retry
from openvibe.subscriptions import Listen
from openvibe.tools import remote_tool

if TYPE_CHECKING:
    from openvibe.runtime import OperatorRuntime

__all__ = [
    "NOT_DONE",
    "Budget",
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


def __getattr__(name: str) -> Any:
    # Most processes never play a run, and LangGraph takes most of a second to import.
    if name == "OperatorRuntime":
        return importlib.import_module("openvibe.runtime").OperatorRuntime
    raise AttributeError(f"module 'openvibe' has no attribute {name!r}")
