"""Inputs of a form, made from JSON Schema, and JSON values read back from what was sent.

Reading only brings values into their JSON types as far as that goes; whether they fit is the domain's to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from openvibe.protocol import nesting

Control = Literal["text", "area", "number", "check", "select", "json", "free"]
Schema = Mapping[str, Any]

#: Texts that may be longer than this get room for several lines.
ONE_LINE = 255
#: Texts that are short by their nature, whether or not their schema says so.
SHORT = frozenset({"subject", "title", "name", "email", "url"})


@dataclass
class Input:
    """One control of a form."""

    name: str
    label: str
    control: Control
    help: str = ""
    required: bool = False
    value: Any = ""
    placeholder: str = ""
    choices: list[Any] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    is_json: bool = False
    form: str = ""

    @property
    def id(self) -> str:
        """The name as an element's id, unlike those of other forms on the page."""
        return "-".join(filter(None, ("in", self.form, *self.name.split("."))))

    @property
    def json_name(self) -> str:
        """The name of the box that says that a free text is JSON."""
        return f"{self.name}.json"

    @property
    def shown(self) -> str:
        """The value as the control holds it."""
        if self.value is None:
            return ""
        if isinstance(self.value, str):
            return self.value
        return json.dumps(self.value, indent=2 if self.control == "json" else None, ensure_ascii=False)

    @property
    def options(self) -> list[tuple[str, bool]]:
        """The choices of a select, each with whether it is the chosen one."""
        return [(str(choice), str(choice) == str(self.value)) for choice in self.choices]

    @property
    def example(self) -> str:
        """What an empty control shows."""
        return self.placeholder or ("Write JSON" if self.control == "json" else "")


class Unreadable(ValueError):
    """What was sent for a control is no JSON."""


def resolved(schema: Schema, root: Schema) -> Schema:
    """Follow references, and take the first choice that is not null."""
    if "$ref" in schema:
        target = root.get("$defs", {}).get(schema["$ref"].rsplit("/", 1)[-1], {})
        return resolved({**target, **{key: value for key, value in schema.items() if key != "$ref"}}, root)
    for choice in ("anyOf", "oneOf"):
        kinds = [item for item in schema.get(choice, []) if item.get("type") != "null"]
        if len(kinds) == 1:
            rest = {key: value for key, value in schema.items() if key != choice}
            return resolved({**kinds[0], **rest}, root)
    return schema


def nullable(schema: Schema) -> bool:
    """Tell whether null fits, as far as the schema itself says what fits."""
    options = [*schema.get("anyOf", ()), *schema.get("oneOf", ())] or [schema]
    return any("null" in option.get("type", "null") for option in options)


def inputs(schema: Schema, root: Schema, values: Mapping[str, Any], *, prefix: str = "") -> list[Input]:
    """Return a control for each property of an object's schema."""
    required = schema.get("required", ())
    return [
        _input(prefix + name, resolved(part, root), value=values.get(name), required=name in required)
        for name, part in schema.get("properties", {}).items()
    ]


def _input(name: str, schema: Schema, *, value: Any, required: bool) -> Input:
    last = name.rsplit(".", 1)[-1]
    control, default = control_of(schema, name=last), schema.get("default")
    example = next(iter(schema.get("examples", ())), "")
    return Input(
        name=name,
        label=_label(schema.get("title") or last),
        control=control,
        help=schema.get("description", ""),
        required=required and control != "check",
        value=value if value is not None else (default if control in ("check", "select") else ""),
        placeholder=f"{default} (default)" if default not in (None, "", [], {}) else example and f"e.g. {example}",
        choices=schema.get("enum") or ([schema["const"]] if "const" in schema else []),
        limits=_limits(schema, control),
    )


def _label(title: str) -> str:
    # Pydantic makes "Wait Days" of wait_days; our pages write sentences.
    words = title.replace("_", " ").split(" ")
    return " ".join([words[0][:1].upper() + words[0][1:], *(w if w.isupper() else w.lower() for w in words[1:])])


def control_of(schema: Schema, *, name: str) -> Control:
    """Choose the control for a value."""
    if "enum" in schema or "const" in schema:
        return "select"
    kind = schema.get("type")
    if kind == "string":
        short = name in SHORT or "format" in schema or schema.get("maxLength", ONE_LINE + 1) <= ONE_LINE
        return "text" if short else "area"
    if kind in ("integer", "number"):
        return "number"
    return "check" if kind == "boolean" else "json"


def _limits(schema: Schema, control: Control) -> dict[str, Any]:
    names = {"minLength": "minlength", "maxLength": "maxlength", "minimum": "min", "maximum": "max"}
    limits = {html: schema[name] for name, html in names.items() if name in schema}
    if control == "number":
        limits["step"] = 1 if schema.get("type") == "integer" else "any"
    return limits


def read(controls: Iterable[Input], sent: Mapping[str, str], *, blanks: bool = False) -> dict[str, Any]:
    """Return the values of controls by their full names, and write what was sent and cannot be read into them.

    A control left empty is left out, so that its default holds; with `blanks` an empty text is an empty text.
    """
    values: dict[str, Any] = {}
    for control in controls:
        raw = sent.get(control.name, "")
        if control.control == "check":
            values[control.name] = control.value = control.name in sent
            continue
        control.value, control.is_json = raw, control.json_name in sent
        if raw.strip() or (blanks and control.control in ("text", "area")):
            try:
                values[control.name] = _typed(control, raw)
            except Unreadable as error:
                control.errors.append(str(error))
    return values


def parsed(text: str) -> Any:
    """Return what a text of JSON holds. Raises `ValueError` if it is none, or nobody can read it for its levels."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it {nesting.FAULT}") from error


def _typed(control: Input, raw: str) -> Any:
    match control.control:
        case "number":
            return _number(raw)
        case "select":
            return next((choice for choice in control.choices if str(choice) == raw), raw)
        case "json" | "free" if control.control == "json" or control.is_json:
            try:
                return parsed(raw)
            except ValueError as error:
                raise Unreadable(f"This is no JSON: {error}") from error
        case _:
            # Browsers send line ends as CRLF whatever the text had.
            return raw.replace("\r\n", "\n")


def _number(raw: str) -> Any:
    for kind in (int, float):
        try:
            return kind(raw)
        except ValueError:
            continue
    return raw
