"""State fields: the annotated attributes of an operator class, with their types, defaults and JSON Schemas."""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticUndefined, SchemaError

from openvibe import canonical
from openvibe.errors import InputError, RunError, SetupError, WrongUpdate
from openvibe.protocol import nesting

#: The key of an update that is no state field: how long the run sleeps after the step.
REST = "wait_duration"


class Fields:
    """The state fields of one operator, shared by all its workflows.

    A field is declared as a class attribute: `name: type = default`. Without a default it is required wherever a
    workflow takes it as input. `Annotated[type, pydantic.Field(title=…, description=…)]` labels it in forms.
    """

    def __init__(self, owner: type) -> None:
        hints = _hints(owner)
        self.types: dict[str, Any] = {name: hint for name, hint in hints.items() if not name.startswith("_")}
        if REST in self.types:
            raise SetupError(f"{owner.__name__}.{REST}: an update's {REST} is a rest; give the field another name")
        self._defaults = {name: getattr(owner, name) for name in self.types if hasattr(owner, name)}
        self._adapters = {name: _adapter(owner, name, hint) for name, hint in self.types.items()}
        for name, default in self._defaults.items():
            self._check_default(owner, name, default)

    @property
    def defaults(self) -> dict[str, Any]:
        """The default values, as copies: a node that changes a list in place must not change it for the next run."""
        return copy.deepcopy(self._defaults)

    def view(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state as a node sees it: the fields that have a value or a default, nothing of the engine's.

        They are copies: what a node changes in place is no update.
        """
        given = {name: copy.deepcopy(value) for name, value in state.items() if name in self.types}
        return {**self.defaults, **given}

    def _check_default(self, owner: type, name: str, default: Any) -> None:
        try:
            self._adapters[name].validate_python(default)
        except ValidationError as error:
            raise SetupError(
                f"{owner.__name__}.{name}: the default {default!r} is no {_name(self.types[name])}: {_first(error)}"
            ) from error

    def check_update(self, node: str, update: Any) -> dict[str, Any]:
        """Return a node's update with every value in its field's type.

        Raises:
            WrongUpdate: the update is no mapping, or names an undeclared field, or holds a value of a wrong type.
        """
        if update is None:
            return {}
        if not isinstance(update, Mapping):
            raise WrongUpdate(f"Node {node!r} returned {type(update).__name__}; return a dict of state fields, or None")
        return {name: self._check_value(node, name, value) for name, value in update.items()}

    def _check_value(self, node: str, name: str, value: Any) -> Any:
        adapter = self._adapters.get(name)
        if adapter is None:
            raise WrongUpdate(
                f"Node {node!r} wrote {name!r}, which is no state field of its operator; declare `{name}: <type>`"
            )
        if nesting.deep(value):
            raise WrongUpdate(f"What node {node!r} wrote to {name!r} {nesting.FAULT}")
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise WrongUpdate(
                f"Node {node!r} wrote {value!r:.80} to {name!r}, which takes {_name(self.types[name])}: {_first(error)}"
            ) from error

    def model(self, title: str, names: Iterable[str]) -> type[BaseModel]:
        """Return a Pydantic model of the named fields that refuses all others."""
        parts: dict[str, Any] = {name: (self.types[name], self._defaults.get(name, ...)) for name in names}
        return create_model(title, __config__=ConfigDict(extra="forbid"), **parts)


def open_model(title: str, schema: Mapping[str, Any]) -> type[BaseModel]:
    """Return a Pydantic model for the input of a graph whose state is known as JSON Schema only.

    It shows that schema to people and programs, and takes its fields as they come: the graph itself checks them.
    """
    names = [name for name in schema.get("properties", {}) if name.isidentifier() and not name.startswith("_")]
    required = set(schema.get("required", ()))
    parts: dict[str, Any] = {name: (Any, ... if name in required else None) for name in names}
    shown = {"title": title, **{key: value for key, value in schema.items() if key != "title"}}

    class Open(BaseModel):
        model_config = ConfigDict(extra="forbid", protected_namespaces=())

        @classmethod
        def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
            return dict(shown)

    return create_model(title, __base__=Open, **parts)


def check_input(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given input in the types of `model`; fields that were not given stay out.

    Raises:
        InputError: a field is missing, unknown or of a wrong type; every problem is named.
    """
    if problems := [_deep(model, name) for name, value in values.items() if nesting.deep(value)]:
        raise InputError("; ".join(f"{p['field']}: {p['message']}" for p in problems), problems)
    try:
        checked = model.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(model, item) for item in error.errors(include_url=False)]
        raise InputError("; ".join(f"{p['field']}: {p['message']}" for p in problems), problems) from error
    given = checked.model_dump(mode="json", exclude_unset=True)
    problems = [_unkept(model, name) for name, value in given.items() if canonical.jsonable(value) != value]
    if problems:
        raise InputError("; ".join(f"{p['field']}: {p['message']}" for p in problems), problems)
    return given


def _deep(model: type[BaseModel], field: str) -> dict[str, str]:
    known = model.model_fields.get(field)
    return {"field": field, "type": _name(known.annotation) if known else "", "message": nesting.FAULT}


def kept(what: str, value: Any) -> Any:
    """Return a value as the JSON that is kept of it; raises `RunError` about `what` it is, if it lies too deep."""
    if nesting.deep(value):
        raise RunError(f"{what} {nesting.FAULT}")
    return canonical.jsonable(value)


def _unkept(model: type[BaseModel], field: str) -> dict[str, str]:
    wanted = _name(model.model_fields[field].annotation)
    message = f"holds a whole number from 2**53 on, a NUL or half a character, which JSON cannot keep (takes {wanted})"
    return {"field": field, "type": wanted, "message": message}


def _problem(model: type[BaseModel], item: Any) -> dict[str, str]:
    field = str(item["loc"][0]) if item["loc"] else ""
    known = model.model_fields.get(field)
    path = ".".join(str(part) for part in item["loc"])
    if known is None:
        names = ", ".join(model.model_fields) or "none"
        return {"field": path, "type": "", "message": f"is no input of this workflow; its inputs are: {names}"}
    wanted = _name(known.annotation)
    if item["type"] == "missing":
        return {"field": path, "type": wanted, "message": f"is required ({wanted})"}
    return {"field": path, "type": wanted, "message": f"{item['msg']} (takes {wanted})"}


def _hints(owner: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except NameError as error:
        raise SetupError(
            f"{owner.__name__}: the type of a state field cannot be resolved: {error}; import it"
        ) from error


def _adapter(owner: type, name: str, hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint)
    except (PydanticUserError, SchemaError) as error:
        problem = error.message if isinstance(error, PydanticUserError) else error
        raise SetupError(
            f"{owner.__name__}.{name}: {hint!r} is no type that a state field can hold: {problem}"
        ) from error


def _name(hint: Any) -> str:
    if hint is PydanticUndefined or hint is None:
        return "any"
    if typing.get_origin(hint) is typing.Annotated:
        return _name(typing.get_args(hint)[0])
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _first(error: ValidationError) -> str:
    return str(error.errors(include_url=False)[0]["msg"])
