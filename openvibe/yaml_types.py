"""State fields of a YAML file: from `list[str]` and its like to types."""

from __future__ import annotations

import ast
import typing
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter
from pydantic_core import SchemaError
from typing_extensions import TypedDict

from openvibe.yaml_schema import FieldPart, Kind

_SIMPLE: dict[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "any": Any, "dict": dict[str, Any], "list": list[Any],
    "string": str, "integer": int, "number": float, "boolean": bool, "object": dict[str, Any], "array": list[Any],
}  # fmt: skip
_EMPTY: dict[Any, Any] = {str: "", int: 0, float: 0.0, bool: False, list: [], dict: {}}
#: Called with a name that is known at run time only, which type checkers do not follow.
_typed_dict: Any = TypedDict
_LIMITS = {"minLength": "min_length", "maxLength": "max_length", "minimum": "ge", "maximum": "le"}
#: What a limit can bound.
_SIZED, _NUMBERS = (str, list, dict, Literal), (int, float)
_BOUNDED = {"minLength": _SIZED, "maxLength": _SIZED, "minimum": _NUMBERS, "maximum": _NUMBERS}


def hint(name: str, kind: Kind) -> Any:
    """Return the type that a field's entry stands for.

    Raises:
        ValueError: it names no type, or bounds it by what cannot bound it.
    """
    if isinstance(kind, str):
        return _type(kind)
    given: dict[str, Any] = {
        word: value
        for word, value in (("title", kind.title), ("description", kind.description), ("examples", kind.examples))
        if value is not None and not (word == "description" and kind.properties)
    }
    shape = _shape(name, kind)
    given |= {word: _limit(shape, kind, key) for key, word in _LIMITS.items() if getattr(kind, key) is not None}
    return Annotated[shape, Field(**given)] if given else shape


def default(kind: Kind) -> tuple[bool, Any]:
    """Tell whether a field has a value before anybody gives it one, and which.

    A type alone, such as `amount: int`, stands for a field that is empty at first.
    """
    if isinstance(kind, FieldPart):
        return "default" in kind.model_fields_set, kind.default
    found = _type(kind)
    return True, _EMPTY.get(typing.get_origin(found) or found)


def owner(name: str, types: Mapping[str, Any], defaults: Mapping[str, Any]) -> type:
    """Return a class that declares these fields, as the author of a class would."""
    return type(name, (), {"__annotations__": dict(types), **defaults})


def _limit(shape: Any, kind: FieldPart, key: str) -> Any:
    """Return a limit of a type. Raises `ValueError` if it cannot bound that."""
    limit = getattr(kind, key)
    parts = typing.get_args(shape) if isinstance(shape, UnionType) else (dict if kind.properties else shape,)
    fits = all((typing.get_origin(part) or part) in (*_BOUNDED[key], NoneType) for part in parts)
    try:
        TypeAdapter(Annotated[shape, Field(**{_LIMITS[key]: limit})])
    except SchemaError:
        fits = False
    if not fits:
        raise ValueError(f"{key}: {limit!r:.40} bounds no {kind.type}")
    return limit


def _shape(name: str, kind: FieldPart) -> Any:
    if kind.enum:
        return Literal[tuple(kind.enum)]
    if kind.properties:
        required = set(kind.properties if kind.required is None else kind.required)
        if strange := sorted(required - set(kind.properties)):
            raise ValueError(f"required names {strange}, which are none of its properties")
        parts = {key: hint(key, part) for key, part in kind.properties.items()}
        optional = {key: part if key in required else NotRequired[part] for key, part in parts.items()}
        made: Any = _typed_dict(name.title().replace("_", ""), optional)
        made.__doc__ = kind.description
        return made
    if kind.items is not None:
        return list[hint(name, kind.items)]  # type: ignore[misc]  # built at run time
    return _type(kind.type)


def _type(text: str) -> Any:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise _unknown(text) from None
    return _read(tree, text)


def _read(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Name(id=name) if name in _SIMPLE:
            return _SIMPLE[name]
        case ast.Constant(value=None):
            return None
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[_read(item, text)]  # type: ignore[misc]  # built at run time
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, value])):
            return dict[_read(key, text), _read(value, text)]  # type: ignore[misc]  # built at run time
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            parts = _read(left, text), _read(right, text)
            if parts != (None, None):
                return parts[0] | parts[1]
    raise _unknown(text)


def _unknown(text: str) -> ValueError:
    return ValueError(f"{text!r} is no type; use {', '.join(_SIMPLE)}, list[str], dict[str, int] or str | None")
