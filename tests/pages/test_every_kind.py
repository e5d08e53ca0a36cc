"""Every kind of event that the product records is told on a page in words, not by its name."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from agents_ui import rendering
from openvibe.protocol import subjects
from operators.models import Event, Run
from tests.docs import documents

pytestmark = pytest.mark.django_db
#: The table is held to the code by `tests/docs`; those of the general channel alone stand below it.
TABLE = documents.rows(documents.section(documents.DOCS / "api.md", "Event kinds"))
GENERAL = {"error", "subscription.disabled", "stream.paused", "stream.resumed"}
KINDS = sorted({name for row in TABLE for name in documents.quoted(row[0])} | GENERAL)
#: What events carry, under all names at once.
DATA: dict[str, Any] = {
    "message": "It said so", "name": "shop.sold", "reason": "the reason", "decision": "approve", "by": "bob",
    "error": "It broke", "prompt": "Send it?", "key": "mail", "attempt": 1, "attempts": 3, "pause": 2.0,
    "payload": {"operator": "desk", "capability": "price", "role": "coding", "tool": "search", "bucket": "leads",
                "key": "ada", "effect": "mail", "task": "Do it"},
    "decisions": ["approve", "reject"], "workflow": "shop.sell", "trigger": "on_demand", "to": "carol",
    "deadline": "2026-02-16T10:00:00+00:00", "subject": "a.b", "subscription": "sub_1", "dead_letter": 1,
    "stream": "cg_evt_v1", "consumer": "openvibe-bridge", "until": "2026-02-16T10:00:00Z",
    "update": {"report": "done"},
}  # fmt: skip


def event(run: Run, seq: int, kind: str, **data: Any) -> Event:
    return Event(
        project_id="default", channel=subjects.thread(run.id), seq=seq, kind=kind, run=run, node="write",
        step_id="step-1" if kind.partition(".")[0] not in ("run", "event") else "", actor="alice", data=data,
        created_at=run.created_at,
    )  # fmt: skip


def shown(run: Run, kind: str, data: dict[str, Any]) -> str:
    started = [] if kind == "step.started" else [event(run, 1, "step.started")]
    # A part of a question alone is never shown.
    opening = {"gate": "gate.opened"}.get(kind.partition(".")[0], f"{kind.partition('.')[0]}.requested")
    asked = (
        [event(run, 2, opening, **data)]
        if kind.endswith((".answered", ".expired", ".decided", ".escalated", ".overridden", ".cancelled"))
        else []
    )
    drawn = rendering.timeline([*started, *asked, event(run, 3, kind, **data)])
    return html.unescape(re.sub(r"<[^>]+>", " ", drawn))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_event_is_told_in_words(kind: str, queued: Run) -> None:
    text = shown(queued, kind, DATA)
    assert kind not in text
    # Something is said that the step alone does not say.
    assert len(text.split()) > len(shown(queued, "step.started", {}).split()) or kind == "step.started"
