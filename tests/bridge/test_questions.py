"""What others were asked over a stream that has lost it is asked again: nobody waits in vain for a purged message."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import nats
import pytest
from django.utils import timezone
from nats.js.errors import NotFoundError

from operators.bridge import questions
from operators.models import Run, Wait
from operators.services import deliveries, forgotten
from tests.bridge.conftest import Bridge, eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

TASTE = {"tool": "taste", "tool_call_id": "t1", "arguments": {}}
CODING = {"role": "coding", "task": {"chunk_id": "c1", "description": "Write it"}}
#: Longer ago than clocks differ.
EARLIER = 2 * forgotten.CLOCKS_APART


@pytest.fixture(autouse=True)
def _hasty(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, pull_seconds=0.2)
    monkeypatch.setattr(questions, "PAUSE", 0.2)


def asked(run: Run, kind: str, payload: Any) -> Wait:
    """A question that went out a while ago."""
    Run.objects.filter(id=run.id).update(status=Run.Status.WAITING)
    wait = Wait.objects.create(
        id=f"wait_{kind}", run=run, kind=kind, node="ask", step_id="s1", interrupt_id="i1", seat=0,
        payload_sha256="0" * 64, prompt="?", payload=payload, opened_at=timezone.now(),
        decisions=["approve"] if kind == "approval" else [],
    )  # fmt: skip
    eventually(lambda: deliveries.ask(wait.id))
    return wait


def aged(wait: Wait) -> None:
    Wait.objects.filter(id=wait.id).update(sent_at=timezone.now() - EARLIER)


def kept(bridge: Bridge, stream: str) -> list[str]:
    """Return the ids of the messages that a stream keeps."""

    async def read() -> list[str]:
        client, found = await nats.connect(bridge.server.url), []
        # A server that has lost it will be told of it in a moment.
        with contextlib.suppress(NotFoundError):
            state = (await client.jetstream().stream_info(stream)).state
            for number in range(max(1, state.first_seq), state.last_seq + 1):
                message = await client.jetstream().get_msg(stream, number)
                found.append(json.loads(message.data or b"{}")["id"])
        await client.close()
        return found

    return asyncio.run(read())


def purged(bridge: Bridge, stream: str) -> None:
    async def purge() -> None:
        client = await nats.connect(bridge.server.url)
        # What was purged is still known by its id for a while; so that nobody waits for that here.
        config = (await client.jetstream().stream_info(stream)).config
        config.duplicate_window = 0.1
        await client.jetstream().update_stream(config)
        await client.jetstream().purge_stream(stream)
        await client.close()

    asyncio.run(purge())


def lost(bridge: Bridge, stream: str) -> None:
    """Let the server lose all that it has."""
    bridge.server.stop()
    shutil.rmtree(bridge.server.folder / "jetstream")
    bridge.server.start()


@pytest.mark.parametrize("loss", [purged, lost])
@pytest.mark.parametrize(
    ("kind", "payload", "stream"),
    [("tool", TASTE, "cg_cmd_v1"), ("work", CODING, "sessions"), ("approval", {}, "sessions")],
)
def test_what_a_stream_has_lost_is_asked_again(
    bridge: Bridge, run: Run, kind: str, payload: Any, stream: str, loss: Callable[[Bridge, str], None]
) -> None:
    wait = asked(run, kind, payload)
    [name] = kept(bridge, stream)
    aged(wait)
    loss(bridge, stream)
    # The bridge carries a clock, which asks.
    eventually(lambda: kept(bridge, stream) == [name])


def test_what_a_stream_still_has_is_not_asked_again(bridge: Bridge, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = asked(run, "tool", TASTE)
    looks: list[str] = []
    look = forgotten.lost
    monkeypatch.setattr(forgotten, "lost", lambda stream, since: looks.append(stream) or look(stream, since))
    eventually(lambda: looks.count("cg_cmd_v1") > 1)
    wait.refresh_from_db()
    assert wait.sent_at is not None


def test_only_what_went_out_before_is_asked_again(run: Run) -> None:
    wait = Wait.objects.create(
        id="wait_1", run=run, kind="tool", node="ask", step_id="s1", interrupt_id="i1", seat=0,
        payload_sha256="0" * 64, prompt="?", payload=TASTE, opened_at=timezone.now(), sent_at=timezone.now(),
    )  # fmt: skip
    for stream, since in (
        ("cg_cmd_v1", wait.sent_at),
        ("cg_cmd_v1", wait.sent_at + forgotten.CLOCKS_APART),
        ("sessions", wait.sent_at + timedelta(days=1)),
    ):
        assert forgotten.lost(stream, since) == 0
    assert forgotten.lost("cg_cmd_v1", wait.sent_at + EARLIER) == 1
