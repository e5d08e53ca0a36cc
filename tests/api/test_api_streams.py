# long: one program that reads, and all that a stream does to it, for each way to ask for one
"""Server-sent events: history, then news, each number once, through outages and reconnects, for those who may read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F
from django.test import Client
from django.utils import timezone

from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import envelope, subjects
from openvibe_site.threads import THREADS, ThreadedHandler
from operators.bridge import ingest
from operators.models import ApiToken, Event, Membership, Operator, Project, Run
from operators.services import intake, streams, watching
from operators.services.channels import append, locked
from tests.api.readers import AGENTS, STREAM, Reading, key

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run(registered: dict[str, Operator], alice: User) -> Run:
    workflow = registered["company_intel"].workflows.get(slug="research")
    return intake.request(workflow, input=workflow.sample_input, actor=alice)


async def test_a_runs_history_comes_first_and_then_what_happens(read, bus: MemoryBus, run: Run, vera: User) -> None:
    await _talk(run, 3)
    reader = await read(vera, run_id=run.id)

    await reader.until("talk 3")
    await _announce(bus, run, [await _say(run, "news")])
    await reader.until("news")

    assert (reader.status, reader.headers[b"Content-Type"]) == (200, b"text/event-stream")
    assert reader.headers[b"Cache-Control"].startswith(b"no-cache")
    assert reader.text.startswith("retry: 1000\n: connected\n\n")
    assert reader.seqs == [1, 2, 3, 4, 5]
    first = reader.events[0]
    assert (first["type"], first["run_id"], first["session_id"]) == ("run.queued", run.id, run.id)
    assert first["data"]["trigger"] == "on_demand"
    assert reader.text.count("event: message\n") == 5


async def test_a_reader_that_comes_back_hears_what_it_missed_once(read, bus: MemoryBus, run: Run, vera: User) -> None:
    await _talk(run, 4)

    again = await read(vera, run_id=run.id, last=3)
    await again.until("talk 4")
    by_number = await read(vera, run_id=run.id, after=3)
    await by_number.until("talk 4")
    newest = await read(vera, run_id=run.id, limit=2)
    await newest.until("talk 4")
    ahead = await read(vera, run_id=run.id, limit=0)
    await ahead.until("connected")
    await _announce(bus, run, [await _say(run, "news")])
    await ahead.until("news")

    assert (again.seqs, by_number.seqs, newest.seqs, ahead.seqs) == ([4, 5], [4, 5], [4, 5], [6])


async def test_a_reader_with_a_number_that_the_stream_has_never_had_begins_anew(
    read, bus: MemoryBus, run: Run, vera: User
) -> None:
    await _talk(run, 4)

    # It has read another database, of which this one is an older copy.
    lost = await read(vera, run_id=run.id, last=900)
    await lost.until("talk 4")
    newest = await read(vera, run_id=run.id, after=6, limit=2)
    await newest.until("talk 4")
    at_the_end = await read(vera, run_id=run.id, last=5)
    await at_the_end.until("connected")
    await _announce(bus, run, [await _say(run, "news")])
    for reader in (lost, newest, at_the_end):
        await reader.until("news")

    assert (lost.seqs, newest.seqs, at_the_end.seqs) == ([1, 2, 3, 4, 5, 6], [4, 5, 6], [6])


async def test_a_session_is_streamed_in_the_words_of_the_dialect(read, bus: MemoryBus, run: Run, vera: User) -> None:
    reader = await read(vera, session=run.id)
    await _announce(bus, run, [await _say(run, "I begin")])
    await reader.until("event.message")
    frames = reader.text.strip().split("\n\n")
    assert frames[-1].splitlines()[:2] == ["id: 2", "event: message"]
    told = json.loads(frames[-1].splitlines()[2].removeprefix("data: "))
    assert (told["type"], told["session_id"], told["payload"]) == ("event.message", run.id, {"content": "I begin"})
    assert told["topic"] == f"sessions.{run.id}.events"


async def test_many_readers_and_a_writer_lose_and_repeat_nothing(read, bus: MemoryBus, run: Run, vera: User) -> None:
    readers = [await read(vera, run_id=run.id, after=0) for _ in range(3)]
    for number in range(30):
        told = await _say(run, f"word {number}.")
        # Some are lost on the way, some come twice.
        for _ in range(number % 3):
            await _announce(bus, run, [told])
        if number % 10 == 0:
            readers.append(await read(vera, run_id=run.id, last=number // 2))
    await _announce(bus, run, [await _say(run, "the end")])
    for reader in readers:
        await reader.until("the end")
        assert reader.seqs == list(range(reader.seqs[0], 33))
    assert [reader.seqs[0] for reader in readers] == [1, 1, 1, 1, 6, 11]


async def test_a_long_history_comes_whole(read, run: Run, vera: User) -> None:
    many = watching.CATCH_UP * 2 + 7
    await _talk(run, many)

    reader = await read(vera, run_id=run.id, after=0)
    await reader.until(f"talk {many}")

    assert reader.seqs == list(range(1, many + 2))


async def test_news_comes_from_the_database_while_the_bus_is_away(read, bus: MemoryBus, run: Run, vera: User) -> None:
    reader = await read(vera, run_id=run.id)
    await reader.until("run.queued")
    bus.connected = False
    await _say(run, "said meanwhile")

    await reader.until("said meanwhile")

    bus.connected = True


async def test_silence_is_filled_with_comments(read, run: Run, vera: User, monkeypatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.05)
    reader = await read(vera, run_id=run.id)

    await reader.until(": alive\n\n: alive\n\n")

    assert reader.seqs == [1]


async def test_the_general_channel_is_the_projects_own_and_can_be_filtered(
    read, run: Run, registered: dict[str, Operator], vera: User, charlie: User
) -> None:
    other = await _started(registered["revenue_ops"].workflows.get)
    await _publish(run, "run.completed", "run.failed", "gate.opened")
    await _publish(other, "run.failed", "agent.message")

    everything = await read(vera)
    await everything.until('"seq":5')
    some = await read(vera, kind="run.*,agent.message")
    await some.until('"seq":5')
    one = await read(vera, kind="run.failed", operator="revenue_ops")
    await one.until('"seq":4')
    agents = await read(vera, AGENTS, channel="general")
    await agents.until('"seq":5')
    his = await read(charlie)
    await his.until("connected")

    assert (everything.seqs, some.seqs, one.seqs, agents.seqs) == ([1, 2, 3, 4, 5], [1, 2, 4, 5], [4], [1, 2, 3, 4, 5])
    assert his.events == []


async def test_agents_find_runs_by_their_own_names(read, run: Run, vera: User, project: Project) -> None:
    await _foreign(project, "9f1c-uid")

    ours = await read(vera, AGENTS, runId=run.id)
    await ours.until("run.queued")
    theirs = await read(vera, AGENTS, workflowUid="9f1c-uid", limit=1)
    await theirs.until("from afar")

    assert (ours.seqs, theirs.seqs) == ([1], [1])


async def test_an_external_runs_events_bear_the_names_that_its_runtime_knows(
    read, project: Project, vera: User
) -> None:
    told = {
        "workflow_uid": "9f1c", "workflow_name": "fix", "workflow_namespace": "lab", "run_id": "run-of-theirs",
        "agent_id": "ada", "role": "tool", "content": "done", "stage": "plan", "step_id": "s1", "attrs": {"n": 1},
    }  # fmt: skip
    subjects_of_both = ("workflow.lab.fix.9f1c.agent.ada.tool_result", "workflow.general.status")
    said = [Message(subject, json.dumps({"id": "m1", **told}).encode()) for subject in subjects_of_both]
    said.append(Message("cg.v1.default.public.evt.agent.scout.message", b'{"id": "m1", "content": "hello"}'))
    await sync_to_async(ingest.take)(said)
    wanted = {
        "agent_id": "ada", "role": "tool", "content": "done", "stage": "plan", "step_id": "s1",
        "type": "agent.tool_result",
    }  # fmt: skip
    attrs = {"n": 1, "stage": "plan"}
    names = {name: told[name] for name in ("workflow_uid", "workflow_name", "workflow_namespace")}
    for query in ({"workflowUid": "9f1c"}, {"runId": "run-of-theirs"}):
        run = await read(vera, AGENTS, **query)
        await run.until('"kind":"tool_result"')
        assert run.events[-1].items() >= {**wanted, **names, "kind": "tool_result", "channel": "run"}.items()
        assert run.events[-1]["attrs"] == {**attrs, "nats_subject": subjects_of_both[0]}
        assert run.events[-1]["created_at"] == run.events[-1]["timestamp"]
    general = await read(vera, AGENTS, channel="general")
    await general.until('"kind":"status"')
    [event] = [event for event in general.events if event["kind"] == "status"]
    assert event.items() >= {**wanted, **names, "type": "agent.status", "channel": "general"}.items()
    assert event["attrs"] == {**attrs, "nats_subject": subjects_of_both[1]}
    # What nobody has said of an event is there, and empty.
    [hello] = [event for event in general.events if event["content"] == "hello"]
    assert {hello[name] for name in names} == {""}
    assert event["id"] == f"public:{event['seq']}"


async def test_charlie_and_strangers_read_no_run(read, run: Run, project: Project, charlie: User) -> None:
    await _foreign(project, "9f1c-uid")
    for path, query in ((STREAM, {"run_id": run.id}), (AGENTS, {"runId": run.id}), (AGENTS, {"runId": "9f1c-uid"}),
                        (STREAM, {"operator": "company_intel"}), (STREAM, {"project": "default"}),
                        (STREAM, {"run_id": "run_none"}), (STREAM, {"run_id": "a\0b"})):  # fmt: skip
        refused = await read(charlie, path, **query)
        assert refused.status == 404
        assert refused.headers[b"Content-Type"] == b"application/problem+json"
        assert json.loads(await refused.ended())["title"] == "not_found"
    stranger = Reading("", STREAM, {}, {})
    await stranger.open()
    assert stranger.status == 401
    await stranger.ended()


async def test_a_request_that_does_not_fit_names_what_is_wrong(read, vera: User) -> None:
    for status, path, query, named in (
        (400, AGENTS, {}, "runId"), (400, AGENTS, {"channel": "private"}, "runId"),
        (422, STREAM, {"kind": "run.**"}, "kind"), (422, STREAM, {"after": "-1"}, "after"),
        (422, STREAM, {"limit": "x"}, "limit"),
    ):  # fmt: skip
        refused = await read(vera, path, **query)
        assert refused.status == status
        assert named in json.loads(await refused.ended())["detail"]


async def test_a_signed_in_browser_reads_with_its_session(bus: MemoryBus, run: Run, vera: User) -> None:
    browser = Client()
    await sync_to_async(browser.force_login)(vera)
    reader = Reading("", STREAM, {"run_id": run.id}, {"cookie": f"sessionid={browser.cookies['sessionid'].value}"})
    await reader.open()

    await reader.until("run.queued")

    await reader.leave()


@pytest.mark.parametrize("void", ["membership", "token", "user"])
async def test_a_stream_ends_when_its_reader_may_look_no_more(
    read, run: Run, vera: User, void: str, monkeypatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(streams, "RIGHTS_SECONDS", 0.1)
    reader = await read(vera, run_id=run.id)
    await reader.until(": alive")

    await {
        "membership": Membership.objects.filter(user=vera).adelete,
        "token": ApiToken.objects.filter(user=vera).adelete,
        "user": lambda: User.objects.filter(pk=vera.pk).aupdate(is_active=False),
    }[void]()

    await reader.ended()


async def test_a_reader_that_cannot_keep_up_is_let_go_and_misses_nothing(bus: MemoryBus, run: Run) -> None:
    slow = streams.Follower(after=0)
    slow.take([{"seq": 1}, {"seq": 2}])
    slow.take([{"seq": number} for number in range(3, streams.BACKLOG + 4)])

    assert slow.cut
    assert await slow.next(1) == [{"seq": 1}, {"seq": 2}]


async def test_open_streams_hold_no_threads(bus: MemoryBus, run: Run, vera: User) -> None:
    server, token = ThreadedHandler(), await key(vera)
    readers = [Reading(token, STREAM, {"run_id": run.id}, {}, server=server) for _ in range(THREADS + 4)]
    for reader in readers:
        await reader.open()
        await reader.until("run.queued")

    # More streams than the server has threads are open, and another request is answered.
    other = Reading(token, "/healthz", {}, {}, server=server)
    await other.open()
    assert other.status == 200

    for reader in readers:
        await reader.leave()


async def _say(run: Run, content: str) -> dict[str, Any]:
    (told,) = await _record(run, [content])
    return told


async def _talk(run: Run, count: int) -> None:
    await _record(run, [f"talk {number + 1}" for number in range(count)])


@sync_to_async
def _record(run: Run, contents: list[str]) -> list[dict[str, Any]]:
    """Write events into the run's thread without announcing them; return them as they travel."""
    changed = Run.objects.filter(pk=run.pk).change("last_seq", last_seq=F("last_seq") + len(contents))
    assert changed is not None
    events = [
        Event(
            project_id=run.project_id, channel=subjects.thread(run.pk), seq=changed[0] - len(contents) + 1 + number,
            run_id=run.pk, kind="agent.message", actor="scout", data={"content": content}, created_at=timezone.now(),
        )
        for number, content in enumerate(contents)
    ]  # fmt: skip
    Event.objects.bulk_create(events)
    return [{**event.wire(), "timestamp": event.created_at.isoformat()} for event in events]


async def _announce(bus: MemoryBus, run: Run, events: list[dict[str, Any]]) -> None:
    subject = subjects.recorded(run.project_id, subjects.thread(run.pk))
    await bus.publish(subject, envelope.dumps({"payload": {"events": events}}))


@sync_to_async
def _started(workflow: Any) -> Run:
    found = workflow(slug="engagement")
    return intake.request(found, input=found.sample_input, actor=None)


@sync_to_async
def _publish(run: Run, *kinds: str) -> None:
    now = timezone.now()
    events = [
        Event(project_id=run.project_id, channel=subjects.PUBLIC, kind=kind, run_id=run.pk, created_at=now)
        for kind in kinds
    ]
    with transaction.atomic():
        append(locked(run.project_id), events)


@sync_to_async
def _foreign(project: Project, name: str) -> None:
    Event.objects.create(
        project=project, channel=subjects.thread(name), seq=1, kind="agent.message", data={"content": "from afar"},
        created_at=timezone.now(),
    )  # fmt: skip
