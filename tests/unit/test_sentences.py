"""What a run's timeline says in the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from openvibe.cli import sentences

USAGE = {"tokens_in": 3, "tokens_out": 4, "simulated": True}


def event(kind: str, node: str, data: dict[str, Any]) -> sentences.Event:
    return {"type": kind, "node": node, "actor": "ada", "data": data}


def test_an_event_of_an_unknown_kind_is_told_plainly() -> None:
    assert sentences.line(event("agent.note", "scout", {"text": "x" * 400})).plain == (
        '· agent.note scout {"text": "' + "x" * 190 + " …"
    )


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        ("step.started", {}, "▸ send"),
        (
            "step.finished",
            {
                "update": {"a": 1},
                "duration_seconds": 2.04,
                "usage": {"tokens_in": 3, "tokens_out": 4, "simulated": True},
            },
            "✓ send → a (2.0 s, 3 + 4 tokens, simulated)",
        ),
        ("step.failed", {"error": "No ink"}, "✗ send failed: No ink"),
        ("attempt.failed", {"attempt": 1, "attempts": 3, "error": "No ink"}, "! send: attempt 1 of 3 failed: No ink"),
        ("gate.expired", {"decision": "reject", "by": "clock"}, "✓ send: reject by clock"),
        ("gate.escalated", {"to": "owner"}, "! send: now owner is asked"),
        (
            "gate.overridden",
            {"fields": ["a", "b"], "reason": "a typo"},
            "! send: ada changed a, b, and it is asked anew: a typo",
        ),
        ("timer.set", {"deadline": "2026-11-23"}, "◷ send sleeps until 2026-11-23"),
        ("timer.fired", {}, "◷ send: time is up"),
        ("event.emitted", {"name": "mail.sent", "payload": {"a": 1}}, '→ mail.sent {"a": 1}'),
        ("event.refused", {"name": "mail.sent", "workflow": "x.y", "reason": "No."}, "! mail.sent started no x.y: No."),
        ("run.cancelled", {"reason": "Enough"}, "✘ cancelled by ada: Enough"),
    ],
)
def test_an_event_is_told_in_the_words_of_its_kind(kind: str, data: dict[str, Any], told: str) -> None:
    assert sentences.line(event(kind, "send", data)).plain == told
