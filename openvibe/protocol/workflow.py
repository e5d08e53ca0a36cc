"""The dialect `workflow`: what agents of an external workflow runtime say, of one run or to everybody.

A run's message goes on `workflow.<namespace>.<name>.<uid>.agent.<agent>.<kind>`, a general one on
`workflow.general.<kind>`. Bodies come in two shapes (whole, or inside `message` or `data`) and spell their fields in
several ways; what a body leaves out its subject tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openvibe.protocol.envelope import Malformed
from openvibe.protocol.subjects import token

PREFIX = "workflow"
GENERAL = "general"
#: What each field may be called, in the order of preference.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "message_id", "messageId", "event_id", "eventId"),
    "uid": ("workflow_uid", "workflowUid", "agent_run_uid", "agentRunUid", "uid"),
    "name": ("workflow_name", "workflowName", "agent_run_name", "agentRunName", "workflow"),
    "namespace": ("workflow_namespace", "workflowNamespace", "agent_run_namespace", "agentRunNamespace", "namespace"),
    "agent": ("agent_id", "agentId", "agent", "agent_name", "agentName"),
    "run_id": ("run_id", "runId"),
    "step_id": ("step_id", "stepId", "step"),
    "stage": ("stage", "workflow_stage", "workflowStage"),
    "role": ("role", "agent_role", "agentRole"),
    "content": ("content", "text", "message", "status", "error"),
    "sent_at": ("timestamp", "sent_at", "sentAt", "created_at", "createdAt"),
    "exit_code": ("exit_code", "exitCode"),
}
#: Beside `attrs`, what is kept of a body, by the name under which it is kept.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "tool": ("tool", "tool_name", "toolName"),
    "status": ("status",),
    "exit_code": ALIASES["exit_code"],
    "repository": ("repository", "repo"),
    "issue": ("issueNumber", "issue_number", "issue"),
    "branch": ("branch",),
    "runtime": ("runtime",),
    "stage": ALIASES["stage"],
}
ROLES = ("system", "user", "assistant", "tool")
#: Kinds that end a run, however they are spelled; `run-complete` says by its status or exit code how.
COMPLETE = frozenset({"run_complete", "run_completed", "run_failed", "run_cancelled", "run_canceled"})
_FAILED = frozenset({"failed", "failure", "fail", "error", "errored", "timeout", "timed_out"})
_CANCELLED = frozenset({"cancelled", "canceled", "terminated", "stopped"})

Ending = Literal["", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which run of an external runtime is meant; all texts may be empty but `uid` of a run's own message."""

    uid: str = ""
    name: str = ""
    namespace: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """One message, whatever its shape was. `ending` says how the run ended, if the message says that it did."""

    identity: Identity
    general: bool
    kind: str
    id: str
    agent: str
    role: str
    content: str
    step_id: str
    sent_at: str
    attrs: Mapping[str, Any]
    ending: Ending


def run_id(project: str, uid: str) -> str:
    """Return the id by which OpenVibe knows an external run."""
    digest = hashlib.sha256(f"{project}\n{token(uid)}".encode()).hexdigest()
    return f"run_x{digest[:24]}"


def subject(identity: Identity, *, agent: str, kind: str, prefix: str = PREFIX) -> str:
    """Return where an agent tells of its run; without a `uid`, where it speaks to everybody."""
    if not identity.uid:
        return f"{prefix}.{GENERAL}.{token(kind)}"
    parts = (identity.namespace or "default", identity.name or "workflow", identity.uid)
    return f"{prefix}.{'.'.join(map(token, parts))}.agent.{token(agent)}.{token(kind)}"


def read(subject: str, body: Mapping[str, Any], *, prefixes: Sequence[str] = (PREFIX,)) -> Told:
    """Return what a message says; the content is empty where it has none.

    Raises:
        Malformed: the subject is none of this dialect, the body has no text, or speaks of another run.
    """
    namespace, name, uid, agent, kind = _parts(subject, prefixes)
    flat = _flattened(body)
    identity = Identity(_uid(flat, uid), _text(flat, "name") or name, _text(flat, "namespace") or namespace,
                        _text(flat, "run_id"))  # fmt: skip
    told = _word(kind)
    attrs = _attributes(flat)
    return Told(
        identity=identity,
        general=not uid,
        kind=told,
        id=_text(flat, "id"),
        agent=_text(flat, "agent") or agent or identity.name or "agent",
        role=_role(flat, told),
        content=_content(flat),
        step_id=_text(flat, "step_id"),
        sent_at=_text(flat, "sent_at"),
        attrs=attrs,
        ending=_ending(told, attrs),
    )


def _parts(subject: str, prefixes: Sequence[str]) -> tuple[str, str, str, str, str]:
    """Take a subject apart: namespace, name, uid, agent and kind, the first four empty for a general one."""
    for prefix in prefixes:
        if not subject.startswith(f"{prefix}."):
            continue
        parts = subject.removeprefix(f"{prefix}.").split(".", 5)
        if len(parts) == 6 and parts[3] == "agent":
            return parts[0], parts[1], parts[2], parts[4], parts[5]
        if parts[0] == GENERAL and len(parts) > 1:
            return "", "", "", "", ".".join(parts[1:])
    first = prefixes[0]
    raise Malformed(
        f"{subject} is neither {first}.<namespace>.<name>.<uid>.agent.<agent>.<kind> nor {first}.{GENERAL}.<kind>"
    )


def _flattened(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body with what lies inside `message` or `data` beside the rest of it."""
    flat = dict(body)
    for name in ("data", "message"):
        if isinstance(flat.get(name), dict):
            flat = {**flat, **flat.pop(name)}
    return flat


def _given(flat: Mapping[str, Any], names: Sequence[str]) -> Iterator[Any]:
    return (flat[name] for name in names if flat.get(name) not in (None, "", {}, []))


def _text(flat: Mapping[str, Any], field: str) -> str:
    for value in _given(flat, ALIASES[field]):
        if isinstance(value, str | int | float):
            return str(value)
    return ""


def _uid(flat: Mapping[str, Any], told: str) -> str:
    given = _text(flat, "uid")
    if told and given and given != told and token(given) != told:
        raise Malformed(f"workflow_uid: {given!r} is not the run of the subject, {told!r}")
    return given or told


def _content(flat: Mapping[str, Any]) -> str:
    found = next(_given(flat, ALIASES["content"]), None)
    if isinstance(found, str):
        return found
    tool = next(_given(flat, ATTRIBUTES["tool"]), None)
    if found is None and tool is not None:
        return str(tool.get("name") or "tool") if isinstance(tool, dict) else str(tool)
    exit_code = next(_given(flat, ALIASES["exit_code"]), None)
    if found is None and exit_code is not None:
        return f"exit code {exit_code}"
    raise Malformed("content: a text is needed (content, text, message, status or error)")


def _role(flat: Mapping[str, Any], kind: str) -> str:
    given = _text(flat, "role")
    return given if given in ROLES else "system" if kind in ("status", "error") or kind in COMPLETE else "assistant"


def _attributes(flat: Mapping[str, Any]) -> dict[str, Any]:
    given = flat.get("attrs")
    found = dict(given) if isinstance(given, dict) else {}
    for name, aliases in ATTRIBUTES.items():
        value = next(_given(flat, aliases), None)
        if value is not None:
            found.setdefault(name, value)
    return found


def _ending(kind: str, attrs: Mapping[str, Any]) -> Ending:
    if kind not in COMPLETE:
        return ""
    status = _word(str(attrs.get("status", "")))
    if "cancel" in kind or status in _CANCELLED:
        return "cancelled"
    failed = kind == "run_failed" or status in _FAILED or str(attrs.get("exit_code", "0")) != "0"
    return "failed" if failed else "completed"


def _word(text: str) -> str:
    return text.lower().replace(".", "_").replace("-", "_")
