"""Announcements count as taken only when a stream keeps every message of theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.utils import timezone

from openvibe.bus import Message
from openvibe.bus.nats import NatsBus
from openvibe.protocol.streams import STREAMS
from operators.link import link
from operators.models.event import EventRow
from operators.services import recorded
from tests import servers
from tests.bridge.conftest import SOON

#: More than the stream takes in one message, and less.
LARGE, SMALL = "x" * 300_000, "x" * 150_000


@pytest.fixture
def picky(settings: Any) -> Iterator[None]:
    """A server whose streams refuse large messages, as full ones refuse all that do not fit any more."""
    with servers.nats() as server:
        settings.NATS_URL = server.url
        asyncio.run(_furnished(server.url))
        yield
        link.submit(link.close()).result(SOON)


async def _furnished(url: str) -> None:
    bus = NatsBus(url, name="administrator")
    await bus.connect()
    await bus.ensure(STREAMS)
    stream = bus._stream
    config = (await stream.stream_info("cg_evt_v1")).config
    config.max_msg_size = 200_000
    await stream.update_stream(config)
    await bus.close()


def events(channel: str, *texts: str) -> list[EventRow]:
    now = timezone.now()
    return [
        EventRow("default", channel, "run.started", None, {"text": text}, now, seq=seq)
        for seq, text in enumerate(texts, start=1)
    ]


def arrived(*letters: tuple[Sequence[EventRow], Sequence[Message]]) -> list[str]:
    return [told[0].channel for flight in recorded.send(letters) for told in flight.arrived()]


def test_an_announcement_of_which_one_part_was_refused_has_not_arrived(picky: None) -> None:
    letter = events("t_1", LARGE, SMALL)
    assert len(list(recorded._parts(letter))) == 2

    assert arrived((letter, ())) == []


def test_an_announcement_that_was_refused_does_not_count_because_another_one_was_kept(picky: None) -> None:
    assert arrived((events("t_1", LARGE), ()), (events("t_2", SMALL), ())) == ["t_2"]
    assert arrived((events("t_3", SMALL), ()), (events("t_4", LARGE), ())) == ["t_3"]


def test_what_goes_before_an_announcement_belongs_to_it(picky: None) -> None:
    before = [Message("cg.v1.default.t_1.evt.agent.a.step", LARGE.encode())]

    assert arrived((events("t_1", SMALL), before), (events("t_2", SMALL), ())) == ["t_2"]


@pytest.mark.parametrize("answer", [b'{"ok": true}', b"[]", b"thank you"])
async def test_only_a_stream_can_say_that_it_keeps_a_message(answer: bytes) -> None:
    with servers.nats() as server:
        bus = NatsBus(server.url)
        await bus.connect()

        async def polite(message: Message) -> bytes:
            return answer

        await bus.serve("nobodys.>", polite)
        [fault] = await bus.store_all([Message("nobodys.a", b"")])
        await bus.close()
    assert "no answer" in str(fault)
