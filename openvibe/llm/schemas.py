"""JSON Schemas as vendors take them: closed where they can be enforced, told in words where they cannot.

Vendors that write strictly to a schema take a subset of JSON Schema: every object closed, every property required
(https://platform.openai.com/docs/guides/structured-outputs).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_KEPT = {
    "type", "enum", "const", "description", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minItems", "maxItems",
}  # fmt: skip
#: What says nothing of which values fit.
_SILENT = {"title", "default", "examples", "discriminator", "deprecated", "readOnly", "writeOnly"}
_READ = {"$ref", "$defs", "properties", "required", "additionalProperties", "items", "anyOf", "oneOf"}
_TYPED = {"type", "enum", "const", "anyOf", "oneOf", "$ref"}


def told(system: str, schema: Mapping[str, Any]) -> str:
    """Return the system text with the wish that the answer obeys `schema`."""
    wish = f"Answer with JSON only, without a code fence. It must obey this JSON Schema:\n{json.dumps(schema)}"
    return f"{system}\n\n{wish}" if system else wish


def resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a `$ref` of `root` points at, with the keywords that stand beside it; anything else as it is."""
    while "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#").strip("/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")] if part else target
        schema = {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
    return schema


def is_enforceable(schema: Mapping[str, Any]) -> bool:
    """Tell whether a vendor can write strictly to it: an object, closed and typed all the way down.

    Free maps, values of any type, tuples and types that hold themselves cannot be: closing them would change which
    answers fit.
    """
    return schema.get("type") == "object" and _is_closed(schema, schema, ())


def _is_closed(schema: Mapping[str, Any], root: Mapping[str, Any], above: tuple[str, ...]) -> bool:
    if not _TYPED & schema.keys() or {"allOf", "prefixItems", "patternProperties"} & schema.keys():
        return False
    if "$ref" in schema:
        if schema["$ref"] in above:
            return False
        above = (*above, schema["$ref"])
        schema = resolved(schema, root)
    if isinstance(schema.get("type"), list) or (schema.get("type") == "array" and "items" not in schema):
        return False
    if schema.get("type") == "object" and (schema.get("additionalProperties") or "properties" not in schema):
        return False
    return all(_is_closed(part, root, above) for part in _parts(schema))


def _parts(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from schema.get("properties", {}).values()
    yield from schema.get("anyOf", ())
    yield from schema.get("oneOf", ())
    if "items" in schema:
        yield schema["items"]


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return an enforceable schema in OpenAI's strict form; bounds that it lacks are told in descriptions."""
    return _strict(schema, schema)


def _strict(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    if schema.keys() == {"$ref"}:
        return dict(schema)
    schema = resolved(schema, root)
    made = {name: value for name, value in schema.items() if name in _KEPT}
    if "properties" in schema:
        made["properties"] = {name: _strict(part, root) for name, part in schema["properties"].items()}
        made |= {"required": list(schema["properties"]), "additionalProperties": False}
    if "items" in schema:
        made["items"] = _strict(schema["items"], root)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        made["anyOf"] = [_strict(part, root) for part in choices]
    if "$defs" in schema:
        made["$defs"] = {name: _strict(part, root) for name, part in schema["$defs"].items()}
    in_words = {name: value for name, value in schema.items() if name not in _KEPT | _READ | _SILENT}
    if in_words.get("format") in _FORMATS:
        made["format"] = in_words.pop("format")
    return described(made, in_words)


def described(schema: dict[str, Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with keywords that the vendor does not take told in its description."""
    if not keywords:
        return schema
    words = json.dumps(keywords, ensure_ascii=False)
    return {**schema, "description": f"{schema['description']}\n\n{words}" if schema.get("description") else words}
