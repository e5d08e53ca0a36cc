"""A gate as a Slack message: what is asked, what it is about, and one button for each decision.

A button quotes the gate's wait, its version and the hash of what is shown, so that a decision counts only for what the
person saw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openvibe import canonical

#: What the ids of our buttons begin with; other apps' buttons in the same workspace begin with something else.
ACTION = "openvibe_gate"

#: Slack's limits: characters of a section's text and of a button's label, buttons of a row, blocks of a message.
_MOST_TEXT, _MOST_LABEL, _MOST_BUTTONS, _MOST_BLOCKS = 3000, 75, 25, 50
_STYLES = {"approve": "primary", "approved": "primary", "reject": "danger", "rejected": "danger"}


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody pressed. `response_url` takes a replacement of the message for thirty minutes."""

    wait_id: str
    version: int
    payload_sha256: str
    decision: str
    user_id: str
    user_name: str = ""
    channel: str = ""
    ts: str = ""
    response_url: str = ""


def gate_blocks(
    prompt: str,
    payload: Any,
    *,
    run_url: str,
    wait_id: str,
    version: int,
    payload_sha256: str,
    decisions: Sequence[str] = ("approve", "reject"),
) -> list[dict[str, Any]]:
    """Return the blocks of a message that asks for a decision.

    `payload` is shown a field at a time; what is too long for Slack is cut, and the message says so and points at
    `run_url`, where everything is.
    """
    shown, cut = _payload(payload)
    note = "There is more to see: open the run before you decide." if cut else ""
    gate = {"wait_id": wait_id, "version": version, "payload_sha256": payload_sha256}
    buttons = [_button(decision, gate) for decision in decisions]
    rows = [buttons[start : start + _MOST_BUTTONS] for start in range(0, len(buttons), _MOST_BUTTONS)]
    link = f"<{_escaped(run_url)}|Open the run>"
    return [
        _section(f"*{_escaped(prompt)}*"),
        *shown,
        {"type": "context", "elements": [{"type": "mrkdwn", "text": f"{link}  {note}".strip()}]},
        *({"type": "actions", "block_id": f"{ACTION}_{place}", "elements": row} for place, row in enumerate(rows)),
    ]


def decision(payload: str | Mapping[str, Any]) -> Decision | None:
    """Read what Slack sends when a button is pressed: the form field `payload`, as text or parsed.

    Returns None for whatever is not a press of one of our buttons. Check the request's signature first.
    """
    try:
        told = json.loads(payload) if isinstance(payload, str) else payload
        if told["type"] != "block_actions":
            return None
        pressed = next(action for action in told["actions"] if str(action["action_id"]).startswith(f"{ACTION}:"))
        value, user = json.loads(pressed["value"]), told["user"]
        return Decision(
            wait_id=str(value["wait_id"]), version=int(value["version"]), decision=str(value["decision"]),
            payload_sha256=str(value["payload_sha256"]), user_id=str(user["id"]),
            user_name=str(user.get("username") or user.get("name") or ""),
            channel=str((told.get("container") or {}).get("channel_id", "")),
            ts=str((told.get("container") or {}).get("message_ts", "")),
            response_url=str(told.get("response_url", "")),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None


def _button(decision: str, gate: Mapping[str, Any]) -> dict[str, Any]:
    label = decision.replace("_", " ").capitalize()[:_MOST_LABEL]
    value = json.dumps({**gate, "decision": decision}, separators=(",", ":"))
    style = {"style": _STYLES[decision]} if decision in _STYLES else {}
    text = {"type": "plain_text", "text": label, "emoji": False}
    return {"type": "button", "action_id": f"{ACTION}:{decision}", "text": text, "value": value, **style}


def _payload(payload: Any) -> tuple[list[dict[str, Any]], bool]:
    """Return the blocks that show a payload, and whether something of it had to be left out."""
    plain = canonical.jsonable(payload)
    fields = plain if isinstance(plain, dict) else {"": plain} if plain not in (None, "", []) else {}
    room = _MOST_BLOCKS - 5
    texts = [(f"*{_escaped(name)}*\n" if name else "") + _escaped(_text(value)) for name, value in fields.items()]
    cut = len(texts) > room or any(len(text) > _MOST_TEXT for text in texts)
    return [_section(text) for text in texts[:room]], cut


def _section(text: str) -> dict[str, Any]:
    cut = text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 2]} …"
    return {"type": "section", "text": {"type": "mrkdwn", "text": cut, "verbatim": True}}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def _escaped(text: str) -> str:
    """Escape what Slack would read as a link, a mention or an entity."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
