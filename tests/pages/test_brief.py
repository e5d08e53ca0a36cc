"""What a page is drawn without a thread: a few words from outside, for which nobody asks the database."""

from __future__ import annotations

from typing import Any

import pytest

from agents_ui import rendering

THREAD = "t_run_1"


def event(kind: str = "agent.message", content: str = "Working on it", **data: Any) -> dict[str, Any]:
    return {
        "seq": 7, "type": kind, "channel": THREAD, "run_id": "run_1", "node": "", "step_id": "", "actor": "scout",
        "data": {"content": content, **data}, "timestamp": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip


@pytest.mark.parametrize("payload", [{}, {"card": "0" * 64, "size": 7}, {"rows": [{"a": 1}]}])
def test_a_few_words_are_brief_and_ask_the_database_nothing(payload: dict[str, Any]) -> None:
    told = [event(payload=payload)]
    assert rendering.brief(THREAD, told)
    # Without the mark for it, this test may not reach the database.
    assert "Working on it" in rendering.pushed("default", THREAD, told)


def test_all_else_is_not_brief() -> None:
    assert not rendering.brief(THREAD, [event(content="x" * rendering.BRIEF)])
    assert not rendering.brief(THREAD, [event(), event()])
    assert not rendering.brief(THREAD, [event("step.started")])
    assert not rendering.brief("public", [event()])
