"""What others were asked over a stream that has lost it is asked again: nobody waits in vain for a purged message."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import nats
import pytest
from django.utils import timezone
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from operators.bridge import furnishing, questions
from operators.models import Run, Wait
from operators.services import deliveries, forgotten
from tests.bridge.conftest import Bridge, eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

TASTE = {"tool": "taste", "tool_call_id": "t1", "arguments": {}}
CODING = {"role": "coding", "task": {"chunk_id": "c1", "description": "Write it"}}
#: Longer ago than clocks differ, and than a stream knows a message by its id.
EARLIER = 2 * forgotten.CLOCKS_APART + forgotten.KNOWN


@pytest.fixture(autouse=True)
def _hasty(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, pull_seconds=0.2)
    monkeypatch.setattr(questions, "PAUSE", 0.2)

    # It would set right how long a stream here knows a message by its id. The readers make the streams.
    async def nothing() -> None: ...

    monkeypatch.setattr(furnishing, "furnish", nothing)


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


def administrate(bridge: Bridge, act: Callable[[JetStreamContext], Coroutine[Any, Any, object]]) -> None:
    async def connected() -> None:
        client = await nats.connect(bridge.server.url)
        await act(client.jetstream())
        await client.close()

    asyncio.run(connected())


def remember(bridge: Bridge, stream: str, seconds: float) -> None:
    """Let a stream know messages by their ids for so long."""

    async def change(streams: JetStreamContext) -> None:
        config = (await streams.stream_info(stream)).config
        config.duplicate_window = seconds
        await streams.update_stream(config)

    administrate(bridge, change)


def purged(bridge: Bridge, stream: str) -> None:
    remember(bridge, stream, 0.1)
    administrate(bridge, lambda streams: streams.purge_stream(stream))


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


def test_what_was_purged_a_moment_after_it_was_asked_is_asked_again_when_its_id_is_forgotten(
    bridge: Bridge, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = timedelta(seconds=4)
    monkeypatch.setattr(forgotten, "KNOWN", window)
    monkeypatch.setattr(forgotten, "CLOCKS_APART", timedelta(seconds=0.5))
    bridge.send()
    remember(bridge, "cg_cmd_v1", window.total_seconds())
    asked(run, "tool", TASTE)
    [name] = kept(bridge, "cg_cmd_v1")
    administrate(bridge, lambda streams: streams.purge_stream("cg_cmd_v1"))
    # What others say meanwhile is kept, and would hide that something older is gone.
    eventually(lambda: timezone.now() - Wait.objects.get(run=run).sent_at > forgotten.CLOCKS_APART)
    other = b'{"id": "other"}'
    administrate(bridge, lambda streams: streams.publish("cg.v1.default.x.cmd.tool.other.cancel", other))

    eventually(lambda: kept(bridge, "cg_cmd_v1") == ["other", name])


def test_what_a_stream_still_has_is_not_asked_again(bridge: Bridge, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgotten, "KNOWN", timedelta(0))
    monkeypatch.setattr(forgotten, "CLOCKS_APART", timedelta(0))
    wait = asked(run, "tool", TASTE)
    sent_at = Wait.objects.get(id=wait.id).sent_at
    looks: list[str] = []
    look = forgotten.lost
    monkeypatch.setattr(forgotten, "lost", lambda stream, since: looks.append(stream) or look(stream, since))
    eventually(lambda: looks.count("cg_cmd_v1") > 1)
    wait.refresh_from_db()
    assert wait.sent_at == sent_at


@pytest.mark.parametrize(
    ("stream", "ago", "since", "lost"),
    [
        ("cg_cmd_v1", EARLIER, 2 * forgotten.CLOCKS_APART, True),
        ("cg_cmd_v1", EARLIER, forgotten.CLOCKS_APART / 2, False),
        ("sessions", EARLIER, 2 * forgotten.CLOCKS_APART, False),
        ("cg_cmd_v1", forgotten.KNOWN, forgotten.KNOWN, False),
        ("cg_cmd_v1", timedelta(hours=25), timedelta(hours=1), False),
    ],
    ids=["lost", "still there", "asked elsewhere", "known by its id", "too old"],
)
def test_only_what_went_out_before_and_is_not_too_old_is_lost(
    run: Run, stream: str, ago: timedelta, since: timedelta, lost: bool
) -> None:
    sent_at = timezone.now() - ago
    Wait.objects.create(
        id="wait_1", run=run, kind="tool", node="ask", step_id="s1", interrupt_id="i1", seat=0,
        payload_sha256="0" * 64, prompt="?", payload=TASTE, opened_at=sent_at, sent_at=sent_at,
    )  # fmt: skip
    assert forgotten.lost(stream, sent_at + since) == lost
