"""What no message can carry goes out once, with a pointer in its place: an operator's event, work, an answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.utils import timezone

from openvibe.bus import MOST_BYTES
from openvibe.bus.nats import NatsBus
from openvibe.events import Event as Fact
from openvibe.protocol import subjects
from operators.bridge import requests
from operators.models import Card, Emission, Project, Run, Wait
from operators.services import cards, deliveries, timeline
from operators.services.cards import INLINE_LIMIT
from tests.bridge.conftest import SOON, Bridge, make_run

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(("size", "inline"), [(10, True), (INLINE_LIMIT, False), (2 * MOST_BYTES, False)])
def test_a_large_payload_goes_out_as_a_pointer_to_its_card(
    bridge: Bridge, project: Project, size: int, *, inline: bool
) -> None:
    bridge.send()
    payload = {"text": "x" * size}
    emission = Emission.objects.create(
        id="emission_1", project=project, run=make_run(project, "run_01"), name="scout.found", payload=payload,
        emitted_at=timezone.now(),
    )  # fmt: skip

    assert deliveries.deliver(emission.id)
    emission.refresh_from_db()
    assert emission.published_at is not None
    said = asyncio.run(kept(bridge.server.url, "operators", "operators.scout.events.found"))["payload"]
    if inline:
        assert said == payload
    else:
        assert set(said) == {"card", "size"}
        assert Card.objects.get(sha256=said["card"]).content == payload


def test_work_and_answers_that_are_too_large_keep_their_small_parts(bridge: Bridge, project: Project) -> None:
    bridge.send()
    large = "x" * (2 * MOST_BYTES)
    run = make_run(project, "run_01")
    Run.objects.filter(pk=run.pk).update(output={"text": large})
    wait = Wait.objects.create(
        id="wait_1", run=run, kind=Wait.Kind.WORK, node="work", step_id="s", interrupt_id="i", payload_sha256="",
        payload={"role": "coding", "task": {"chunk_id": "c1", "description": large}}, opened_at=timezone.now(),
    )  # fmt: skip

    assert deliveries.ask(wait.id)
    said = asyncio.run(kept(bridge.server.url, "sessions", "sessions.run_01.work"))["payload"]
    assert (said["chunk_id"], said["work_id"]) == ("c1", wait.id)
    assert Card.objects.get(sha256=said["description"]["card"]).content == large
    answer = requests._result(run.id)
    assert (answer["run_id"], answer["status"]) == (run.id, "completed")
    assert Card.objects.get(sha256=answer["result"]["card"]).content == {"text": large}


def test_many_values_that_are_too_large_together_are_announced(bridge: Bridge, project: Project) -> None:
    bridge.send()
    run = make_run(project, "run_01")
    values = {f"part_{number}": "x" * (INLINE_LIMIT - 100) for number in range(40)}
    timeline.note(run.id, Fact("log", data={"message": "much", **values}))
    said = asyncio.run(kept(bridge.server.url, "cg_evt_v1", subjects.recorded("default", "t_run_01")))
    data = said["payload"]["events"][0]["data"]
    assert (data["message"], data.keys()) == ("much", {"message", *values})
    assert {
        name: Card.objects.get(sha256=data[name]["card"]).content if cards.is_pointer(data[name]) else data[name]
        for name in values
    } == values


async def kept(url: str, stream: str, subject: str) -> dict[str, Any]:
    bus = NatsBus(url, name="reader")
    await bus.connect()
    pull = await bus.pull(stream, durable="reader", patterns=[subject])
    async with asyncio.timeout(SOON):
        while not (found := await pull.fetch(1, timeout=1)):
            pass
    await bus.close()
    body: dict[str, Any] = json.loads(found[0].data)
    return body
