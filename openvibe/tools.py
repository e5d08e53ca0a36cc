"""The tools of an agent node: Python functions with types, or work that an agent elsewhere performs."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from openvibe import canonical, loop
from openvibe.errors import SetupError, ToolError
from openvibe.llm import Tool

_CTX = "ctx"
#: What every vendor takes.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class RemoteTool:
    """A tool that an agent elsewhere performs; the run waits for the result and holds nothing meanwhile."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    timeout: timedelta | None = None


def remote_tool(
    name: str, *, description: str, parameters: Mapping[str, Any] | None = None, timeout: timedelta | None = None
) -> RemoteTool:
    """Describe a tool that an agent elsewhere performs, for `@agent_node(tools=[…])`.

    `parameters` is the JSON Schema of its arguments (an object). Who performs it takes the command from the bus under
    the tool's name and answers there. After `timeout` the model is told that nobody answered.

    Example:
        >>> crawl = remote_tool("crawl", description="Read a page.", parameters={"type": "object", "properties": {
        ...     "url": {"type": "string"}}, "required": ["url"]})
    """
    return RemoteTool(name, description, dict(parameters or {"type": "object", "properties": {}}), timeout)


@dataclass(frozen=True)
class ToolDefinition:
    """A tool as the engine uses it: what the model reads, and how it is called. `remote` has no function here."""

    spec: Tool
    function: Callable[..., Any] | None = None
    model: type[BaseModel] | None = None
    takes_ctx: bool = False
    remote: RemoteTool | None = None

    def call(self, arguments: Mapping[str, Any], ctx: Any) -> str:
        """Call the function and return its result as the text that a model reads.

        Raises:
            ToolError: the arguments do not fit, or the function says so itself.
        """
        assert self.function is not None
        assert self.model is not None
        try:
            checked = self.model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ToolError(f"The arguments do not fit: {_problems(error)}") from error
        given = {str(known.alias): getattr(checked, name) for name, known in self.model.model_fields.items()}
        result = self.function(**given, **({_CTX: ctx} if self.takes_ctx else {}))
        return as_text(loop.run(result) if inspect.iscoroutine(result) else result)


def as_text(result: Any) -> str:
    """Return a tool's result as the text that a model reads: text as it is, anything else as JSON."""
    return result if isinstance(result, str) else canonical.dumps(result)


def definition(where: str, given: Any) -> ToolDefinition:
    """Read a tool that `@agent_node` was given.

    Raises:
        SetupError: it is no function with typed parameters and a docstring, and no `remote_tool(…)`.
    """
    if isinstance(given, RemoteTool):
        _check_name(where, given.name)
        return ToolDefinition(Tool(given.name, given.description, dict(given.parameters)), remote=given)
    if not inspect.isroutine(given):
        raise SetupError(f"{where}: {given!r} is no tool; use a function with types or remote_tool(…)")
    _check_name(where, given.__name__)
    text = inspect.getdoc(given)
    if not text:
        raise SetupError(f"{where}: tool {given.__name__!r} has no docstring; the model reads it to know what it does")
    model, takes_ctx = _arguments(f"{where}: tool {given.__name__!r}", given)
    schema = model.model_json_schema()
    schema.pop("title", None)
    return ToolDefinition(Tool(given.__name__, text, schema), given, model, takes_ctx)


def _check_name(where: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SetupError(f"{where}: no model can call a tool {name!r}; use letters, digits, _ and -, 64 at most")


def _arguments(where: str, function: Callable[..., Any]) -> tuple[type[BaseModel], bool]:
    hints = _hints(where, function)
    parts: dict[str, Any] = {}
    takes_ctx = False
    for name, parameter in inspect.signature(function).parameters.items():
        if name == _CTX:
            takes_ctx = True
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise SetupError(f"{where} takes {str(parameter)!r}; a model fills named parameters only")
        elif name not in hints:
            raise SetupError(f"{where}: parameter {name!r} has no type; write `{name}: <type>`")
        else:
            default = ... if parameter.default is parameter.empty else parameter.default
            # By an alias, because a field of a Pydantic model cannot bear every name that a parameter may.
            parts[f"argument_{name}"] = (hints[name], Field(default, alias=name))
    try:
        return create_model(function.__name__, __config__=ConfigDict(extra="forbid"), **parts), takes_ctx
    except PydanticUserError as error:
        raise SetupError(f"{where} has a parameter that JSON cannot fill: {error.message}") from error


def _hints(where: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise SetupError(f"{where}: the type of a parameter cannot be resolved: {error}; import it") from error


def _problems(error: ValidationError) -> str:
    items = error.errors(include_url=False)[:5]
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}" for item in items)
