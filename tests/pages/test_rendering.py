"""Folding events into items, and the fragments that keep open pages right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.template.loader import render_to_string

from agents_ui import items, rendering
from agents_ui.entries import Entry
from agents_ui.items import Moment
from agents_ui.steps import Step
from operators.models import Event, Run, Wait
from operators.services import announcements, intake, timeline
from operators.services.waits import Answer, answer
from tests.pages.conftest import played

pytestmark = pytest.mark.django_db
AT = datetime(2026, 2, 16, 9, 30, tzinfo=UTC)


def entry(seq: int, kind: str, step_id: str = "", **data: Any) -> Entry:
    return Entry(seq=seq, kind=kind, run_id="run_1", node="work", step_id=step_id, actor="", data=data, at=AT)


def told(*entries: Entry) -> list[tuple[str, str]]:
    return [(item.id, item.status) if isinstance(item, Step) else ("", item.entry.kind) for item in items.fold(entries)]


def wires(run: Run, channel: str = "") -> list[dict[str, Any]]:
    rows = timeline.read("default", channel or f"t_{run.id}")
    return [{**row.wire(), "timestamp": row.created_at.isoformat()} for row in rows]


def pushed(run: Run, events: list[dict[str, Any]]) -> str:
    return rendering.pushed("default", f"t_{run.id}", events)


def test_what_lies_deep_in_a_value_is_shown_as_itself_unless_it_goes_deeper_still() -> None:
    deep = {"files": ["a.py", "b.py"], "count": 3, "nested": {"x": 1}}
    value = {"one": {"two": {"three": deep}}}
    page = render_to_string("values/value.html", {"value": value})
    assert "<li>b.py</li>" in page
    assert page.count("Show as JSON") == 1


def test_the_events_of_a_step_are_one_item_where_it_began() -> None:
    entries = [
        entry(1, "run.started"),
        entry(2, "step.started", "a"),
        entry(3, "agent.message"),
        entry(4, "attempt.failed", "a"),
        entry(5, "step.finished", "a", update={"x": 1}, duration_seconds=2.5),
    ]
    assert told(*entries) == [("", "run.started"), ("a", "completed"), ("", "agent.message")]
    step = items.fold(entries)[1]
    assert isinstance(step, Step)
    assert [part.family for part in step.parts] == ["attempt"]
    assert (step.update, step.duration, step.seq) == ({"x": 1}, 2.5, 5)


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        (["step.started"], "running"),
        (["step.started", "gate.opened"], "waiting"),
        (["step.started", "gate.opened", "gate.decided"], "running"),
        (["step.started", "gate.opened", "gate.decided", "step.finished"], "completed"),
        (["step.started", "step.failed"], "failed"),
        (["step.started", "run.lost"], "stopped"),
        (["step.started", "run.lost", "run.resumed"], "running"),
        (["step.started", "run.cancelled"], "stopped"),
        (["step.finished"], "completed"),
        (["step.started", "work.requested"], "waiting"),
        (["step.started", "work.requested", "work.answered"], "running"),
        (["step.started", "tool.requested", "tool.expired"], "running"),
        (["step.started", "reply.requested", "run.cancelled"], "stopped"),
        (["step.started", "gate.opened", "gate.escalated"], "waiting"),
        (["step.started", "effect.attempted", "log"], "running"),
    ],
)
def test_a_step_stands_where_its_events_say(kinds: list[str], status: str) -> None:
    entries = [entry(seq, kind, "" if kind.startswith("run") else "a") for seq, kind in enumerate(kinds, 1)]
    assert told(*entries)[0] == ("a", status)


def test_a_question_and_its_answer_are_one_part_and_two_questions_are_two() -> None:
    entries = [
        entry(1, "step.started", "a"),
        entry(2, "gate.opened", "a", wait_id="1"),
        entry(3, "gate.decided", "a", wait_id="1", decision="answer", values={"answer": "x"}),
        entry(4, "gate.opened", "a", wait_id="2"),
    ]
    (step,) = items.fold(entries)
    assert isinstance(step, Step)
    assert [bool(part.closed) for part in step.parts] == [True, False]
    assert step.status == "waiting"


def test_an_effects_tries_are_one_part_with_its_result() -> None:
    entries = [
        entry(1, "step.started", "a"),
        entry(2, "effect.attempted", "a", key="pay"),
        entry(3, "effect.attempted", "a", key="post"),
        entry(4, "effect.failed", "a", key="pay", result=None),
        entry(5, "effect.attempted", "a", key="pay", attempt=2),
        entry(6, "effect.confirmed", "a", key="pay", result={"receipt": 1}),
        entry(7, "effect.skipped", "a", key="pay"),
    ]
    (step,) = items.fold(entries)
    assert isinstance(step, Step)
    assert [(part.last.kind, part.details) for part in step.parts] == [
        ("effect.skipped", {"receipt": 1}),
        ("effect.attempted", None),
    ]


def test_what_a_gates_answer_tells_is_not_told_again() -> None:
    entries = [
        entry(1, "step.started", "a"),
        entry(2, "gate.opened", "a", wait_id="1"),
        entry(3, "gate.decided", "a", wait_id="1", decision="approve", values={"plan": "B"}),
        entry(4, "step.finished", "a", update={"work": "approve", "plan": "B", "more": 1}),
    ]
    (step,) = items.fold(entries)
    assert isinstance(step, Step)
    assert step.update == {"more": 1}


def test_the_clocks_facts_stand_beside_the_step_that_they_follow() -> None:
    entries = [entry(1, "step.started", "a"), entry(2, "step.finished", "a"), entry(3, "timer.set", "a")]
    assert told(*entries) == [("a", "completed"), ("", "timer.set")]


@pytest.mark.parametrize("kind", sorted(items.TOLD))
def test_every_kind_that_is_told_has_a_sentence_that_bears_missing_data(kind: str) -> None:
    if kind == "error":
        return
    moment = Moment(entry(1, kind, message="said"))
    assert render_to_string(moment.sentence, {"entry": moment.entry, "children": {}}).strip()


def test_the_general_channel_folds_nothing() -> None:
    rows = items.unfolded([entry(1, "gate.opened", "a"), entry(2, "gate.decided", "a")])
    assert [type(item) for item in rows] == [Moment, Moment]


def test_an_event_reads_the_same_from_row_and_wire(completed: Run) -> None:
    row = Event.objects.filter(run=completed).first()
    assert row is not None
    wire = {**row.wire(), "timestamp": row.created_at.isoformat().replace("+00:00", "Z")}
    assert Entry.of(row) == Entry.read(wire)


def test_an_unknown_kind_is_shown_all_the_same(completed: Run) -> None:
    row = Event(project_id="default", channel=f"t_{completed.id}", seq=99, kind="../../etc/passwd", created_at=AT)
    assert "../../etc/passwd" in rendering.timeline([row])


def test_what_an_agent_says_asks_the_database_for_nothing_and_redraws_nothing_of_the_run(
    completed: Run, django_assert_num_queries: Any
) -> None:
    told = {**wires(completed)[-1], "seq": 1000, "type": "agent.message", "step_id": "", "data": {"content": "hello"}}
    with django_assert_num_queries(0):
        html = pushed(completed, [told])
    assert "hello" in html
    assert "run-head" not in html


def test_a_window_that_cuts_a_step_shows_it_whole(completed: Run) -> None:
    rows = timeline.newest("default", f"t_{completed.id}")
    begun = next(row for row in rows if row.kind == "step.started")
    page = rendering.timeline([row for row in rows if row.seq > begun.seq])
    assert f'id="e{begun.seq}"' in page
    assert page.count(f'id="step-{begun.step_id}"') == 1


def test_a_step_that_starts_and_ends_in_one_batch_is_added_once_and_done(completed: Run) -> None:
    html = pushed(completed, wires(completed))
    added = html.split("</ol>")[0]
    assert html.startswith('<ol hx-swap-oob="beforeend:#timeline">')
    assert added.count("step-completed") == 4
    assert 'hx-swap-oob="true"' not in added
    assert "step-running" not in html


def test_the_end_of_a_step_replaces_it_and_knows_its_beginning(completed: Run) -> None:
    events = wires(completed)
    began = next(event for event in events if event["type"] == "step.started")
    ended = next(event for event in events if event["step_id"] == began["step_id"] and event is not began)
    html = pushed(completed, [ended])
    step = html[: html.index("</li>")]
    assert step.startswith(f'<li id="step-{began["step_id"]}"')
    assert 'hx-swap-oob="true"' in step
    assert f'id="e{began["seq"]}"' in step
    assert "beforeend:#timeline" not in html


def test_a_push_brings_head_result_and_gates_up_to_date(gate: Wait) -> None:
    html = pushed(gate.run, wires(gate.run)[-1:])
    for part in ('id="run-head"', 'id="run-result"', 'id="run-gate"'):
        assert part in html
    assert f'hx-get="/agents/{gate.run_id}/gates/{gate.id}/"' in html
    assert 'data-dispatch="gates-changed"' in html


def test_a_push_holds_nothing_of_a_single_user(gate: Wait) -> None:
    html = pushed(gate.run, wires(gate.run))
    assert "csrf" not in html
    assert "<form" not in html
    assert "Cancel run" not in html


def test_an_agents_message_leaves_the_open_gate_alone(gate: Wait) -> None:
    event = {**wires(gate.run)[0], "seq": 99, "type": "agent.message", "actor": "scout", "data": {"content": "hi"}}
    html = pushed(gate.run, [event])
    assert "<b>scout</b>" in html
    assert 'id="run-gate"' not in html


def test_a_decision_replaces_the_gate_and_empties_its_place(gate: Wait, alice: User) -> None:
    answer(gate, Answer("approve", notes="Go"), actor=alice)
    run = played(gate.run)
    decided = next(event for event in wires(run) if event["type"] == "gate.decided")
    html = pushed(run, [decided])
    assert "<b>alice</b> approved: “Go”" in html
    assert f"/gates/{gate.id}/" not in html


def test_a_cancelled_run_stops_the_steps_that_were_open(gate: Wait, alice: User) -> None:
    intake.cancel(gate.run, actor=alice)
    html = pushed(gate.run, wires(gate.run)[-1:])
    assert f'<li id="step-{gate.step_id}" class="step step-stopped' in html
    assert html.count('class="step ') == 1


def test_public_news_come_first_and_name_their_run(gate: Wait) -> None:
    news = Event.objects.filter(run_id=gate.run_id, kind__in=announcements.PUBLIC_KINDS).order_by("seq")
    announcements.publicly(list(news))
    html = rendering.pushed("default", "public", wires(gate.run, "public"))
    assert html.startswith('<ol hx-swap-oob="afterbegin:#timeline">')
    assert html.index("Asks for a decision") < html.index("Run started")
    assert "Revenue Operations" in html


def test_words_are_escaped_and_a_name_that_is_none_is_dropped() -> None:
    assert rendering.words("a-1", "<b>") == '<div hx-swap-oob="beforeend:#words-a-1">&lt;b&gt;</div>'
    assert rendering.words('a"><script>', "x") == ""
    assert rendering.words("a", "") == ""


def test_the_state_says_how_live_a_page_is() -> None:
    html = rendering.state("offline")
    assert 'id="live-state"' in html
    assert 'data-state="offline"' in html
    assert 'aria-live="polite"' in html
