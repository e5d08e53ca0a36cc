"""The dialect `workflow`: what agents of an external workflow runtime say, of one run or to everybody.

A run's message goes on `workflow.<namespace>.<name>.<uid>.agent.<agent>.<kind>`, a general one on
`workflow.general.<kind>`. Bodies come in two shapes (whole, or inside `message` or `data`) and spell their fields in
several ways; what a body leaves out its subject tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
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
    "issueNumber": ("issueNumber", "issue_number", "issue"),
    "branch": ("branch",),
    "runtime": ("runtime",),
    "stage": ALIASES["stage"],
}
#: The attribute that says where a message was said.
SUBJECT = "nats_subject"
ROLES = ("system", "user", "assistant", "tool")
#: Kinds that end a run, however they are spelled; `run-complete` says by its status or exit code how.
COMPLETE = frozenset({"run_complete", "run_completed", "run_failed", "run_cancelled", "run_canceled"})
_FAILED = frozenset({"failed", "failure", "fail", "error", "errored", "timeout", "timed_out"})
_CANCELLED = frozenset({"cancelled", "canceled", "terminated", "stopped"})

Ending = Literal["", "completed", "failed", "cancelled"]


def _spellings() -> dict[str, list[tuple[str, int]]]:
    found: dict[str, list[tuple[str, int]]] = {}
    for field, names in {**ALIASES, **ATTRIBUTES}.items():
        for rank, name in enumerate(names):
            found.setdefault(name, []).append((field, rank))
    return found


#: The fields that a name in a body may stand for, each with its place in their order of preference.
_SPELLINGS: Mapping[str, Sequence[tuple[str, int]]] = _spellings()
#: What a body says of each field.
Given = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which run of an external runtime is meant; all texts may be empty but `uid` of a run's own message."""

    uid: str = ""
    name: str = ""
    namespace: str = ""
    run_id: str = ""

    @property
    def names(self) -> dict[str, str]:
        """What the runtime calls the workflow that runs, by the names that its messages have for that."""
        return {"workflow_uid": self.uid, "workflow_name": self.name, "workflow_namespace": self.namespace}


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


@lru_cache(maxsize=4096)
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


def word(text: str) -> str:
    """Return a kind or a status as it is kept, however an agent spells it: `run-complete` is `run_complete`."""
    return text.lower().replace(".", "_").replace("-", "_")


def read(subject: str, body: Mapping[str, Any], *, prefixes: Sequence[str] = (PREFIX,)) -> Told:
    """Return what a message says; the content is empty where it has none.

    Raises:
        Malformed: the subject is none of this dialect, the body has no text, or speaks of another run.
    """
    namespace, name, uid, agent, kind = _parts(subject, tuple(prefixes))
    flat = _flattened(body)
    given = _spelled(flat)
    identity = Identity(_uid(given, uid), _text(given, "name") or name, _text(given, "namespace") or namespace,
                        _text(given, "run_id"))  # fmt: skip
    told = word(kind)
    attrs = _attributes(flat.get("attrs"), given, subject)
    return Told(
        identity=identity,
        general=not uid,
        kind=told,
        id=_text(given, "id"),
        agent=_text(given, "agent") or agent or identity.name or "agent",
        role=_role(given, told),
        content=_content(given, told),
        step_id=_text(given, "step_id"),
        sent_at=_text(given, "sent_at"),
        attrs=attrs,
        ending=_ending(told, attrs),
    )


# An agent speaks often on one subject.
@lru_cache(maxsize=4096)
def _parts(subject: str, prefixes: tuple[str, ...]) -> tuple[str, str, str, str, str]:
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


def _flattened(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the body with what lies inside `message` or `data` beside the rest of it."""
    flat = body
    for name in ("data", "message"):
        if isinstance(inner := flat.get(name), dict):
            flat = {**{key: value for key, value in flat.items() if key != name}, **inner}
    return flat


def _spelled(body: Mapping[str, Any]) -> Given:
    """Return what a body says of each field, in the order in which its spellings are preferred."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for name, value in body.items():
        if name in _SPELLINGS and (value or value not in (None, "", {}, [])):
            for field, rank in _SPELLINGS[name]:
                found.setdefault(field, []).append((rank, value))
    return {field: [value for _, value in sorted(values, key=itemgetter(0))] for field, values in found.items()}


def _first(given: Given, field: str) -> Any:
    return given[field][0] if field in given else None


def _text(given: Given, field: str) -> str:
    for value in given.get(field, ()):
        if isinstance(value, str | int | float):
            return str(value)
    return ""


def _uid(given: Given, told: str) -> str:
    uid = _text(given, "uid")
    if told and uid and uid != told and token(uid) != told:
        raise Malformed(f"workflow_uid: {uid!r} is not the run of the subject, {told!r}")
    return uid or told


def _content(given: Given, kind: str) -> str:
    found = _first(given, "content")
    if isinstance(found, str):
        return found
    tool = _first(given, "tool")
    if found is None and tool is not None:
        return str(tool.get("name") or "tool") if isinstance(tool, dict) else str(tool)
    exit_code = _first(given, "exit_code")
    if found is None and exit_code is not None:
        return f"exit code {exit_code}"
    if found is None and (kind == "status" or kind in COMPLETE):
        # That it is so says enough.
        return kind.replace("_", " ")
    raise Malformed("content: a text is needed (content, text, message, status or error)")


def _role(given: Given, kind: str) -> str:
    role = _text(given, "role")
    return role if role in ROLES else "system" if kind in ("status", "error") or kind in COMPLETE else "assistant"


def _attributes(attrs: Any, given: Given, subject: str) -> dict[str, Any]:
    found = {**attrs, SUBJECT: subject} if isinstance(attrs, dict) else {SUBJECT: subject}
    for name in [name for name in ATTRIBUTES if name in given]:
        found.setdefault(name, given[name][0])
    return found


def _ending(kind: str, attrs: Mapping[str, Any]) -> Ending:
    if kind not in COMPLETE:
        return ""
    status = word(str(attrs.get("status", "")))
    if "cancel" in kind or status in _CANCELLED:
        return "cancelled"
    failed = kind == "run_failed" or status in _FAILED or str(attrs.get("exit_code", "0")) != "0"
    return "failed" if failed else "completed"
