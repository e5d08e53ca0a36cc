"""The Python code behind a YAML file: functions of the file beside it, named as the nodes are."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from openvibe.marks import MARK

Handler = Callable[..., Any]


def functions(path: Path) -> dict[str, Handler]:
    """Return the functions that a file defines or imports; none if there is no such file.

    Raises:
        ValueError: the file cannot be imported.
    """
    if not path.is_file():
        return {}
    try:
        module = _module(path)
    except Exception as error:
        raise ValueError(f"{path.name} cannot be imported: {type(error).__name__}: {error}") from error
    return {name: item for name, item in vars(module).items() if callable(item) and not name.startswith("_")}


def named(known: Mapping[str, Handler], operator: str, workflow: str, node: str) -> Handler | None:
    """Return the function of a node: `<operator>_<workflow>_<node>`, else `<workflow>_<node>`, else `<node>`."""
    names = (f"{operator}_{workflow}_{node}", f"{workflow}_{node}", node)
    return next((known[name] for name in names if name in known), None)


def tool(name: str) -> Any:
    """Return what a dotted name stands for.

    Raises:
        ValueError: nothing.
    """
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name!r} is no function that can be imported: {error}") from error


def as_method(handler: Handler) -> Handler:
    """Return a function of its own for a node, so that one handler may serve several."""

    @functools.wraps(handler)
    def method(*args: Any) -> Any:
        return handler(*args)

    vars(method).pop(MARK, None)
    return method


def written(handler: Handler) -> list[str]:
    """Return the keys of the dicts that a function returns, as far as its text tells them."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(handler)))
    except (OSError, TypeError, SyntaxError):
        return []
    dicts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict))
    keys = (key.value for each in dicts for key in each.keys if isinstance(key, ast.Constant))
    return list(dict.fromkeys(key for key in keys if isinstance(key, str)))


def _module(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Types and pickles look their module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
