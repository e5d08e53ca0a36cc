"""A person's own channel over REST: the reader's, and nobody else's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.utils import timezone

from openvibe.bus.memory import MemoryBus
from openvibe.protocol import envelope, subjects
from operators.models import Event, Project
from operators.services import channels
from tests.api.readers import AGENTS, STREAM
from tests.api.test_api_operators import problem

pytestmark = pytest.mark.django_db(transaction=True)


@transaction.atomic
def tell(project: Project, user: str, *words: str) -> None:
    """Say something on a person's channel."""
    row: dict[str, Any] = {"project": project, "channel": f"u_{user}", "kind": "agent.message"}
    events: Any = [Event(**row, data={"content": word}, created_at=timezone.now()) for word in words]
    channels.append(channels.locked(project.pk, f"u_{user}"), events)


@pytest.mark.parametrize("query", [
    {"channel": "u_alice"}, {"run_id": "u_alice"}, {"session": "u_alice"}, {"channel": "u_bob"},
    {"run_id": "../u_alice"},
])  # fmt: skip
def test_nobody_can_name_another_ones_channel(
    bob_calls: Client, project: Project, alice: User, query: dict[str, str]
) -> None:
    tell(project, "alice", "for Alice")
    for path in (STREAM, "/v1/events"):
        answer = bob_calls.get(path, query)
        assert answer.status_code in (404, 422) or answer.json() == bob_calls.get(path).json(), path
    for name in ("runId", "workflowUid", "channel"):
        assert bob_calls.get(AGENTS, {name: next(iter(query.values()))}).status_code in (400, 404)


def test_the_log_of_a_persons_channel_is_his(alice_calls: Client, bob_calls: Client, project: Project) -> None:
    tell(project, "alice", "for Alice")
    told = alice_calls.get("/v1/events", {"channel": "mine"}).json()["events"]
    assert [json.dumps(record).count("for Alice") for record in told] == [1]
    assert bob_calls.get("/v1/events", {"channel": "mine"}).json()["events"] == []
    assert problem(alice_calls.get("/v1/events", {"channel": "u_alice"}), 422)["errors"][0]["field"] == "channel"


async def test_each_reads_his_own_channel_and_no_other(read: Any, project: Project, alice: User, bob: User) -> None:
    await sync_to_async(tell)(project, "alice", "for Alice", "and more")
    await sync_to_async(tell)(project, "bob", "for Bob")
    for path in (STREAM, AGENTS):
        hers = await read(alice, path, channel="mine")
        his = await read(bob, path, channel="mine")
        await hers.until("and more")
        await his.until("for Bob")
        assert (hers.seqs, his.seqs) == ([1, 2], [1])
        assert "Alice" not in his.text
        assert "Bob" not in hers.text
    later = await read(alice, channel="mine", last=1)
    await later.until("and more")
    assert later.seqs == [2]


async def test_news_of_a_persons_channel_reaches_its_reader(
    read: Any, bus: MemoryBus, project: Project, alice: User, bob: User
) -> None:
    hers, his = await read(alice, channel="mine"), await read(bob, channel="mine")
    await sync_to_async(tell)(project, "alice", "psst")
    event = await Event.objects.aget(channel="u_alice")
    told = {"payload": {"events": [event.wire()]}}
    await bus.publish(subjects.recorded(project.pk, "u_alice"), envelope.dumps(told))
    await hers.until("psst")
    await sync_to_async(tell)(project, "bob", "Alice has heard something")
    event = await Event.objects.aget(channel="u_bob")
    told = {"payload": {"events": [event.wire()]}}
    await bus.publish(subjects.recorded(project.pk, "u_bob"), envelope.dumps(told))
    await his.until("Alice has heard something")
    assert his.text.count("psst") == 0
