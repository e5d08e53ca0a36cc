"""Pauses of graphs that were brought as they are: what their `interrupt(value)` asks, and the answer they expect.

Three shapes are known. A value of Agent Inbox (`HumanInterrupt`, LangGraph's `prebuilt.interrupt`), one of LangChain's
human-in-the-loop middleware (`action_requests` with `review_configs`, or a single `tool_approval`), and any other
value, which becomes a gate with one free answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openvibe import canonical
from openvibe.errors import RunError
from openvibe.outcomes import WaitRequest

#: Agent Inbox's permissions, and what each allows.
_INBOX = {"allow_accept": "accept", "allow_edit": "edit", "allow_respond": "response", "allow_ignore": "ignore"}
_MIDDLEWARE = ("approve", "edit", "reject", "respond")
#: The decisions that say nothing without words.
_WORDED = ("response", "respond")
#: Where a free question's words stand, in the order in which they are looked for.
_QUESTIONS = ("question", "prompt", "message", "instruction", "instructions", "query", "task", "description")


def request(value: Any, *, node: str, response_schema: Mapping[str, Any] | None = None) -> WaitRequest:
    """Return what a graph's own interrupt asks of people."""
    single = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(single, Mapping) and isinstance(single.get("action_request"), Mapping):
        return _inbox(single, node)
    if isinstance(single, Mapping) and isinstance(single.get("action_requests"), list):
        return _middleware(single, node)
    if isinstance(single, Mapping) and single.get("type") == "tool_approval":
        return _approval(single, node, response_schema)
    return _free(value, node, response_schema)


def resume(form: str, shown: Any, answer: Mapping[str, Any]) -> Any:
    """Return what goes back into the graph, in the shape that the form of its question expects.

    Raises:
        RunError: the answer lacks what its decision needs.
    """
    decision, notes = answer["decision"], answer.get("notes") or ""
    values = answer.get("values") or {}
    match form:
        case "agent_inbox":
            return [_inbox_answer(shown["action_request"], decision, notes, values)]
        case "middleware":
            actions = shown["action_requests"]
            edited = values.get("actions") or [None] * len(actions)
            if len(edited) != len(actions):
                raise RunError(f"The answer edits {len(edited)} actions; the question has {len(actions)}")
            return {"decisions": [_one(decision, notes, values, *pair) for pair in zip(actions, edited, strict=True)]}
        case "tool_approval":
            return _one(decision, notes, values, shown, values.get("action"))
        case _:
            return values.get("answer", notes or None)


def _free(value: Any, node: str, response_schema: Mapping[str, Any] | None) -> WaitRequest:
    told, wanted = canonical.jsonable(value), dict(response_schema or {})
    # A schema's own definitions are looked up from the root of the whole.
    definitions: dict[str, Any] = {name: wanted.pop(name) for name in ("$defs", "definitions") if name in wanted}
    prompt = told if isinstance(told, str) else ""
    if isinstance(told, dict):
        texts = (told.get(name) for name in _QUESTIONS)
        prompt = next((text for text in texts if isinstance(text, str) and text), "")
    return WaitRequest(
        kind="approval",
        node=node,
        prompt=prompt or f"{node} asks",
        payload=told if isinstance(told, dict) else {"value": told},
        decisions=["answer"],
        schema={**_schema(["answer"], {"answer": wanted}, required=["answer"]), **definitions},
        edits=["answer"],
        form="value",
    )


def _inbox(value: Mapping[str, Any], node: str) -> WaitRequest:
    action, config = value["action_request"], value.get("config") or {}
    decisions = [word for permission, word in _INBOX.items() if config.get(permission)] or ["accept"]
    edits = {"args": {"type": "object"}} if "edit" in decisions else {}
    return WaitRequest(
        kind="approval",
        node=node,
        prompt=str(value.get("description") or f"{action.get('action', node)}?"),
        payload=canonical.jsonable(value),
        decisions=decisions,
        schema=_schema(decisions, edits),
        edits=list(edits),
        form="agent_inbox",
    )


def _inbox_answer(action: Mapping[str, Any], decision: str, notes: str, values: Mapping[str, Any]) -> dict[str, Any]:
    match decision:
        case "edit":
            args = values.get("args", action.get("args") or {})
            return {"type": "edit", "args": {"action": action.get("action"), "args": args}}
        case "accept":
            return {"type": "accept", "args": dict(action)}
        case "response":
            return {"type": "response", "args": notes}
        case _:
            return {"type": decision, "args": None}


def _middleware(value: Mapping[str, Any], node: str) -> WaitRequest:
    actions, configs = value["action_requests"], value.get("review_configs") or []
    allowed = [set(config.get("allowed_decisions") or _MIDDLEWARE[:3]) for config in configs] or [set(_MIDDLEWARE[:3])]
    decisions = [word for word in _MIDDLEWARE if all(word in words for words in allowed)]
    names = ", ".join(str(action.get("name", "")) for action in actions)
    number = {"minItems": len(actions), "maxItems": len(actions)}
    items = {"type": "array", "items": {"type": ["object", "null"]}, **number}
    edits = {"actions": items} if "edit" in decisions else {}
    return WaitRequest(
        kind="approval",
        node=node,
        prompt=next((str(action["description"]) for action in actions if action.get("description")), f"Run {names}?"),
        payload=canonical.jsonable(value),
        decisions=decisions or ["reject"],
        schema=_schema(decisions or ["reject"], edits),
        edits=list(edits),
        form="middleware",
    )


def _approval(value: Mapping[str, Any], node: str, response_schema: Mapping[str, Any] | None) -> WaitRequest:
    allowed = _decisions_in(response_schema) or list(_MIDDLEWARE)
    edits = {"action": {"type": "object"}} if "edit" in allowed else {}
    return WaitRequest(
        kind="approval",
        node=node,
        prompt=str(value.get("description") or f"Run {value.get('name')}?"),
        payload=canonical.jsonable(value),
        decisions=allowed,
        schema=_schema(allowed, edits),
        edits=list(edits),
        form="tool_approval",
    )


def _one(
    decision: str, notes: str, values: Mapping[str, Any], action: Mapping[str, Any], edited: Any
) -> dict[str, Any]:
    """Return one decision of the middleware. An edit may give whole actions (`name`, `args`) or arguments only."""
    match decision:
        case "edit":
            changed = edited if isinstance(edited, Mapping) else {}
            args = changed.get("args", changed or action.get("args") or {})
            return {"type": "edit", "edited_action": {"name": action.get("name"), "args": args}}
        case "reject":
            return {"type": "reject", **({"message": notes} if notes else {})}
        case "respond":
            return {"type": "respond", "message": notes}
        case _:
            return {"type": decision}


def _schema(decisions: list[str], values: dict[str, Any], *, required: list[str] | None = None) -> dict[str, Any]:
    """Return the JSON Schema of a decision: as the gates of `@human_in_the_loop` ask it, with these editable values."""
    properties: dict[str, Any] = {
        "decision": {"enum": decisions, "type": "string"},
        "notes": {"type": "string", "maxLength": 10_000, "default": ""},
    }
    if values:
        properties["values"] = {
            "type": "object",
            "properties": values,
            "required": required or [],
            "additionalProperties": False,
        }
    schema = {
        "type": "object",
        "properties": properties,
        "required": ["decision", *(["values"] if required else [])],
        "additionalProperties": False,
    }
    if worded := [word for word in decisions if word in _WORDED]:
        words = {"properties": {"notes": {"minLength": 1}}, "required": ["notes"]}
        schema |= {"if": {"properties": {"decision": {"enum": worded}}, "required": ["decision"]}, "then": words}
    return schema


def _decisions_in(schema: Mapping[str, Any] | None) -> list[str]:
    """Return the decision types that a per-call response schema allows: the constants of its `type` properties."""
    found: list[str] = []
    options: list[Any] = [schema]
    while options:
        option = options.pop(0)
        if isinstance(option, Mapping):
            kind = (option.get("properties") or {}).get("type") or {}
            found += [word for word in [kind.get("const"), *kind.get("enum", [])] if word in _MIDDLEWARE]
            options += [
                *(option.get("anyOf") or []),
                *(option.get("oneOf") or []),
                *(option.get("$defs") or {}).values(),
            ]
    return [word for word in _MIDDLEWARE if word in found]
