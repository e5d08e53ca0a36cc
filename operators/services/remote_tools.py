"""Calls of tools that somebody elsewhere performs: sent out by a card, and called back when nobody waits any more."""

from __future__ import annotations

from typing import Any

import orjson

from openvibe.protocol import envelope, internal, requests, subjects
from operators.models import Wait
from operators.services import boxes, cards, errands, outgoing


def call(wait: Wait) -> bool:
    """Tell whoever performs a tool that it is called; False if the bus did not take it.

    The arguments lie in a card, which the message points at. Tools of our own are called the same way, at their office.
    """
    run, asked = wait.run, wait.payload
    card = cards.keep(run.project_id, asked["arguments"], orjson.dumps(asked["arguments"]))
    told = {
        "tool_call_card_id": card["card"],
        "context_box_id": boxes.context(run),
        "after_execution": "suspend",
    }
    answer_to = requests.answer(run.project_id, run.id, wait.id)
    return _told(wait, "call", told, more={requests.ANSWER_TO: answer_to})


def recall(wait: Wait) -> bool:
    """Tell whoever performs a tool that nobody waits for its result any more; False if the bus did not take it."""
    if wait.payload["tool"] in internal.TOOLS:
        errands.abandon(wait)
        return True
    return _told(wait, "cancel", {"reason": f"The call is {wait.status}, its run {wait.run.status}"}, more={})


def _told(wait: Wait, act: str, told: dict[str, Any], *, more: dict[str, str]) -> bool:
    run, tool = wait.run, wait.payload["tool"]
    office = act == "call" and tool in internal.TOOLS
    subject = (
        internal.subject(run.project_id, run.id, tool) if office else subjects.tool(run.project_id, run.id, tool, act)
    )
    called = {
        "tool_name": tool,
        "tool_call_id": wait.payload["tool_call_id"],
        "agent_id": run.operator.slug,
        "agent_turn_id": run.turn_id,
        "turn_epoch": run.epoch,
        **told,
    }
    # Tools that know the dialect alone read the body itself, others the envelope's payload.
    body = {
        **called,
        "version": envelope.VERSION,
        "id": wait.id if act == "call" else f"{act}:{wait.id}",
        "timestamp": wait.opened_at,
        "type": f"tool.{act}",
        "project": run.project_id,
        "channel": subjects.thread(run.id),
        "run_id": run.id,
        "step_id": wait.step_id,
        "payload": called,
    }
    return outgoing.of_run(run, subject, body, f"tool.{act}", more=more)
