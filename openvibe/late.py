"""Modules that load LangGraph, imported when something of them is first wanted.

LangGraph takes most of a second and 30 MiB, and most processes never play a run. Who seldom needs one of these modules
says `late.history`; who plays imports it.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openvibe import compiler, engine
    from openvibe.graph import history

__all__ = ["compiler", "engine", "history"]

_MODULES = {"compiler": "openvibe.compiler", "engine": "openvibe.engine", "history": "openvibe.graph.history"}


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
