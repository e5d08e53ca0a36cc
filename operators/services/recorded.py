"""What was recorded, on its way to the bus: events of a channel as one message or a few, and what goes before them."""

from __future__ import annotations

import concurrent.futures
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import orjson

from openvibe.bus import Message
from openvibe.errors import BusError
from openvibe.protocol import envelope, headers, subjects
from operators.link import link
from operators.models.event import Told

logger = logging.getLogger(__name__)

#: NATS takes at most 1 MiB a message; a longer batch is told in parts of about this many bytes.
MESSAGE_SIZE = 400 * 1024
#: How long the bus may take to say that it keeps a batch, in seconds.
PATIENCE = 10.0

#: Consecutive events of one channel, and the messages that precede theirs on the same stream.
Letter = tuple[Sequence[Told], Sequence[Message]]


@dataclass(frozen=True)
class Flight:
    """Letters of one project on their way together."""

    _sent: concurrent.futures.Future[list[Letter]]

    @property
    def over(self) -> bool:
        """Whether the bus has said whether it keeps them."""
        return self._sent.done()

    def arrived(self) -> Iterator[Sequence[Told]]:
        """Wait for the bus's word, and return the events of each letter that it keeps to the last message."""
        try:
            kept = self._sent.result(PATIENCE)
        except TimeoutError:
            self._sent.cancel()
            logger.info("Not announced yet: the bus says nothing")
            return
        yield from (events for events, _ in kept)


def send(letters: Iterable[Letter]) -> Iterator[Flight]:
    """Send letters, to be kept by their stream; those of a project on one errand, however many they are."""
    projects: dict[str, list[Letter]] = defaultdict(list)
    for letter in letters:
        projects[letter[0][0].project_id].append(letter)
    for together in projects.values():
        yield Flight(link.submit(_kept(together)))


async def _kept(letters: Sequence[Letter]) -> list[Letter]:
    """Send letters; return those of which each message is kept: a stream may be full for some, and have changed."""
    messages = [list(_messages(*letter)) for letter in letters]
    try:
        words = iter(await link.store_all([message for parts in messages for message in parts]))
    except BusError as error:
        logger.info("Not announced yet: %s", error)
        return []
    faults = [[fault for fault in islice(words, len(parts)) if fault] for parts in messages]
    refused = [fault for found in faults for fault in found]
    if refused:
        logger.warning("Not announced yet: %d messages, %s", len(refused), refused[0])
    return [letter for letter, found in zip(letters, faults, strict=True) if not found]


def _messages(events: Sequence[Told], beside: Sequence[Message]) -> Iterator[Message]:
    yield from beside
    yield from (_message(*part) for part in _parts(events))


def _parts(events: Sequence[Told]) -> Iterator[tuple[list[Told], list[bytes]]]:
    part: list[Told] = []
    texts: list[bytes] = []
    size = 0
    for event in events:
        text = envelope.dumps(event.wire())
        if part and size + len(text) > MESSAGE_SIZE:
            yield part, texts
            part, texts, size = [], [], 0
        part.append(event)
        texts.append(text)
        size += len(text)
    yield part, texts


def _message(events: list[Told], texts: list[bytes]) -> Message:
    last = events[-1]
    subject = subjects.recorded(last.project_id, last.channel)
    batch = f"{last.channel}:{events[0].seq}-{last.seq}"
    body = {
        "version": envelope.VERSION,
        "id": batch,
        "timestamp": last.created_at,
        "type": "timeline.recorded",
        "project": last.project_id,
        "channel": last.channel,
        "run_id": last.run_id or "",
        "seq": last.seq,
        "role": "system",
        "kind": "event",
        # Put in as they are: each event is made text once.
        "payload": {"events": [orjson.Fragment(text) for text in texts]},
    }
    stamps = headers.stamped("timeline.recorded", message_id=envelope.message_id(subject, batch))
    return Message(subject, envelope.dumps(body), stamps)
