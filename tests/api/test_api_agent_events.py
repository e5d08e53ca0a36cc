"""What agents told everybody, found among what a busy site says: by kind, by repository, issue and branch."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import transaction

from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.cli import soaking
from openvibe.protocol import envelope, subjects
from operators.api.streams import ABOUT, MOST_NEWEST
from operators.bridge import ingest
from operators.models import Event, Operator, Project
from operators.models.event import EventRow
from operators.services import intake
from operators.services.channels import append, locked
from tests.api.readers import AGENTS, STREAM

pytestmark = pytest.mark.django_db(transaction=True)

#: Between two words of agents, so many runs tell that they have started and ended.
RUNS = 60
KINDS = ("status", "error", "message", "note", "run-complete", "run.complete")


async def test_the_newest_that_are_wanted_come_however_much_else_was_told(
    read, registered: dict[str, Operator], project: Project, vera: User
) -> None:
    await _say(status="the door", message="the roof", branch="main")
    await _busy(registered["company_intel"])
    await _say(error="the cellar", issueNumber=7, repo="house")
    await _busy(registered["company_intel"])

    async def heard(path: str = AGENTS, *, until: str, **query: Any) -> list[str]:
        asked = {"channel": "general"} if path == AGENTS else {}
        reader = await read(vera, path, **asked, **query)
        await reader.until(until)
        return [event["data"].get("content", event["type"]) for event in reader.events]

    assert await heard(kind="agent.*", limit=2, until="cellar") == ["the roof", "the cellar"]
    assert await heard(kind="status,error", limit=50, until="cellar") == ["the door", "the cellar"]
    assert await heard(kind="agent.message", branch="main", limit=1, until="roof") == ["the roof"]
    assert await heard(issue="7", limit=9, until="cellar") == ["the cellar"]
    assert await heard(repository="house", limit=9, until="cellar") == ["the cellar"]
    assert await heard(STREAM, kind="agent.*", limit=2, until="cellar") == ["the roof", "the cellar"]
    assert await heard(STREAM, kind="run.started", limit=3, until="run.started") == ["run.started"] * 3


@pytest.mark.parametrize("kind", ["run-complete", "run.complete", "agent.run_complete"])
async def test_a_kind_may_be_spelled_as_its_agent_spelled_it(read, project: Project, vera: User, kind: str) -> None:
    await _say(**{"run-complete": "the roof", "note": "the door", "run.complete": "the cellar"})

    reader = await read(vera, AGENTS, channel="general", kind=kind)

    await reader.until("the cellar")
    assert [event["content"] for event in reader.events] == ["the roof", "the cellar"]


async def test_after_what_was_only_what_is_wanted_comes_too(
    read, bus: MemoryBus, registered: dict[str, Operator], project: Project, vera: User
) -> None:
    await _busy(registered["company_intel"])
    reader = await read(vera, AGENTS, channel="general", kind="agent.*", branch="main")
    await reader.until("connected")
    await _say(message="of another one", branch="next")
    await _say(message="the news", branch="main")
    news = await sync_to_async(lambda: [event.wire() for event in Event.objects.filter(kind="agent.message")])()
    for event in news:
        event["timestamp"] = event["timestamp"].isoformat()
    await bus.publish(subjects.recorded("default", subjects.PUBLIC), envelope.dumps({"payload": {"events": news}}))
    await reader.until("the news")
    assert [event["content"] for event in reader.events] == ["the news"]


async def test_an_attribute_that_no_event_can_hold_is_refused(read, project: Project, vera: User) -> None:
    refused = await read(vera, AGENTS, channel="general", branch="a\0b")
    assert refused.status == 422
    assert "branch" in json.loads(await refused.ended())["detail"]


def test_the_command_knows_what_the_server_takes() -> None:
    assert soaking.MOST == MOST_NEWEST
    assert set(soaking.ABOUT) == set(ABOUT)


@sync_to_async
def _say(**told: Any) -> None:
    """Tell everybody, as agents of a workflow runtime do: what is no text of a kind is said of all of it."""
    texts = {name: told.pop(name) for name in KINDS if name in told}
    ingest.take(
        [
            Message(f"workflow.general.{kind}", json.dumps({"id": text, "content": text, **told}).encode())
            for kind, text in texts.items()
        ]
    )


@sync_to_async
def _busy(operator: Operator) -> None:
    workflow = operator.workflows.get(slug="research")
    run = intake.request(workflow, input=workflow.sample_input, actor=None)
    rows = [
        EventRow(
            project_id=run.project_id, channel=subjects.PUBLIC, kind=kind, run_id=run.pk, data={},
            created_at=run.created_at,
        )
        for _ in range(RUNS)
        for kind in ("run.started", "run.completed")
    ]  # fmt: skip
    with transaction.atomic():
        append(locked(run.project_id), rows)
