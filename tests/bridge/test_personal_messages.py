"""What agents tell one person, on his channel: recorded there like news on the general channel."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User

from openvibe.bus import Message
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import subjects
from operators.bridge import ingest
from operators.models import Channel, Event, Project
from tests.bridge.conftest import Bridge, eventually, letters, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]


def word(number: int, *, to: str = "u_alice", kind: str = "message", project: str = "default") -> Message:
    body = {"id": f"m{number}", "content": f"word {number}", "agent_turn_id": "t1", "status": "success"}
    return Message(f"cg.v1.{project}.{to}.evt.agent.scout.{kind}", json.dumps(body).encode(), {})


def test_an_agents_words_to_a_person_stand_on_his_channel_once_and_in_order(alice: User, memory: MemoryBus) -> None:
    ingest.take([word(1), word(2), word(1)])
    ingest.take([word(2), word(3), word(4, kind="task")])
    assert said("u_alice") == ["word 1", "word 2", "word 3", "word 4"]
    assert [event.seq for event in Event.objects.filter(channel="u_alice").order_by("seq")] == [1, 2, 3, 4]
    assert Channel.objects.get(name="u_alice").last_seq == 4
    assert not Event.objects.exclude(channel="u_alice").exists()
    assert letters() == []


def test_a_channel_of_nobody_who_sees_the_project_is_none(
    alice: User, charlie: User, other_project: Project, memory: MemoryBus
) -> None:
    ingest.take([word(1, to="u_nobody"), word(2, to="u_charlie"), word(3, project="other"), word(4)])
    assert [reason for _, _, reason in letters()] == [
        "Nobody knows the channel 'u_nobody'", "Nobody knows the channel 'u_charlie'",
        "Nobody knows the channel 'u_alice'",
    ]  # fmt: skip
    assert said("u_alice") == ["word 4"]


def test_a_person_with_an_odd_name_is_reached_by_the_name_of_his_channel(project: Project, memory: MemoryBus) -> None:
    User.objects.create_superuser("ada@example.com")
    ingest.take([word(1, to=subjects.personal("ada@example.com"))])
    assert said(subjects.personal("ada@example.com")) == ["word 1"]


def test_words_to_a_person_come_over_the_bus(alice: User, bridge: Bridge) -> None:
    bridge.send((word(1).subject, json.loads(word(1).data)))
    eventually(lambda: said("u_alice") == ["word 1"])
    eventually(lambda: Channel.objects.get(name="u_alice").announced_seq == 1)
