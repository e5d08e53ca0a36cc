"""A session's events in the words of the dialect `sessions`: one record each, for its log, for REST and for streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openvibe.protocol import sessions

Wire = dict[str, Any]
#: Type, place and payload of a message.
Told = tuple[str, str, Any]


def of(event: Wire) -> dict[str, Any]:
    """Return the record of an event as `Event.wire` has it.

    `type` is the dialect's where it has a word for the event, `topic` where such a message goes, and `kind` our own
    word. `seq` numbers a session's records without holes.
    """
    word, place, payload = _told(event)
    session = event["run_id"]
    return {
        "id": f"{session or event['channel']}:{event['seq']}",
        "seq": event["seq"],
        "session_id": session,
        "timestamp": event["timestamp"],
        "type": word,
        "topic": sessions.subject(session, place) if session else "",
        "kind": event["type"],
        "node": event["node"],
        "actor": event["actor"],
        "payload": payload,
    }


def _told(event: Wire) -> Told:
    data = event["data"]
    match event["type"]:
        case "work.requested":
            return _work(event)
        case "work.answered" | "work.expired":
            return _result(data)
        case "gate.opened":
            return "approval.request", "approvals", _question(event)
        case "gate.decided" | "gate.expired":
            return _decision(event)
        case kind if kind.startswith("agent."):
            # `agent.agent_started` is what an agent calls `event.agent.started`.
            word = kind.removeprefix("agent.").replace("agent_", "agent.")
            return f"event.{word}", "events", {"content": data.get("content", ""), **(data.get("payload") or {})}
        case kind:
            return kind, "events", data


def _work(event: Wire) -> Told:
    asked = event["data"].get("payload") or {}
    task = asked.get("task", asked)
    told = task if isinstance(task, Mapping) else {"task": task}
    return f"work.{asked.get('role', 'requested')}", "work", {**told, "work_id": event["data"]["wait_id"]}


def _result(data: Mapping[str, Any]) -> Told:
    named = {"work_id": data["wait_id"], **({"context": {"agent_id": data["by"]}} if data["by"] else {})}
    if data["error"]:
        return "result.failure", "results", {**named, "error": data["error"]}
    result = data["result"]
    return "result.success", "results", {**named, **(result if isinstance(result, Mapping) else {"result": result})}


def _question(event: Wire) -> dict[str, Any]:
    data = event["data"]
    shown = data["payload"] if isinstance(data["payload"], Mapping) else {}
    told = {"gate_id": data["wait_id"], "phase": event["node"], "summary": data["prompt"]}
    quoted = {name: data[name] for name in ("decisions", "version", "payload_sha256")}
    return {**told, **{name: shown[name] for name in ("chunk_id", "phase", "changes") if name in shown}, **quoted}


def _decision(event: Wire) -> Told:
    data = event["data"]
    no = data["decision"] == "reject"
    who, when, why = ("rejected_by", "rejected_at", "reason") if no else ("approved_by", "approved_at", "notes")
    told = {"gate_id": data["wait_id"], who: data["by"], when: event["timestamp"], why: data["notes"]}
    return ("approval.rejected" if no else "approval.granted"), "approvals", {**told, "decision": data["decision"]}
