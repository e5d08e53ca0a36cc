"""Compares a table of streams, durable readers and buckets with a NATS server, and makes the server as the table says.

What NATS cannot change in place is explained and left alone: making it anew would lose messages or a position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamSource,
)
from nats.js.errors import APIError, NotFoundError

from openvibe.bus import DUPLICATE_WINDOW, matches
from openvibe.protocol.streams import Bucket, Consumer, Stream

State = Literal["missing", "different", "fixed"]

#: What would refuse a message, or drop one before its time; age and bytes alone bound what a stream keeps.
BOUNDS = ("max_msgs", "max_msgs_per_subject", "max_msg_size")
UNBOUNDED = -1


@dataclasses.dataclass(frozen=True)
class Difference:
    """Something that is not as the table says: `missing`, `different` and changeable, or `fixed` by the server."""

    state: State
    what: str
    field: str = ""
    wanted: Any = None
    found: Any = None
    remedy: str = ""

    def __str__(self) -> str:
        if self.state == "missing":
            return f"{self.what} is missing"
        told = f"{self.what}: {self.field} is {self.found!r}, {self.wanted!r} is wanted"
        return f"{told}. {self.remedy}" if self.remedy else told


@dataclasses.dataclass(frozen=True)
class Table:
    """What a server of NATS must have. A bucket may be missing: whoever first uses it makes it."""

    streams: Sequence[Stream]
    consumers: Sequence[Consumer]
    buckets: Sequence[Bucket] = ()


async def compare(jetstream: JetStreamContext, table: Table) -> list[Difference]:
    """Return every difference between the server and the table."""
    found: list[Difference] = []
    for stream in table.streams:
        found += await _stream(jetstream, stream)
    for consumer in table.consumers:
        found += await _consumer(jetstream, consumer)
    for bucket in table.buckets:
        found += await _bucket(jetstream, bucket)
    return found


async def apply(jetstream: JetStreamContext, table: Table, *, shared: bool = False) -> list[Difference]:
    """Make what is missing and change what can be changed; return the differences that there were, all of them.

    What is `shared` with other servers keeps the subjects that they keep in a stream.
    """
    found: list[Difference] = []
    for stream in [await _widened(jetstream, row) for row in table.streams] if shared else table.streams:
        differences = await _stream(jetstream, stream)
        found += await _settled(differences, lambda stream=stream: _put_stream(jetstream, stream))
    for consumer in table.consumers:
        differences = await _consumer(jetstream, consumer)
        found += await _settled(differences, lambda consumer=consumer: _put_consumer(jetstream, consumer))
    for bucket in table.buckets:
        differences = await _bucket(jetstream, bucket)
        found += await _settled(differences, lambda bucket=bucket: _put_bucket(jetstream, bucket))
    return found


async def _widened(jetstream: JetStreamContext, stream: Stream) -> Stream:
    """Return the stream with what else it keeps on the server; NATS lets no two subjects of a stream overlap."""
    try:
        kept = (await jetstream.stream_info(stream.name)).config.subjects or ()
    except NotFoundError:
        return stream
    others = [one for one in kept if not any(matches(own, one) or matches(one, own) for own in stream.subjects)]
    return dataclasses.replace(stream, subjects=(*stream.subjects, *others))


async def _settled(differences: list[Difference], put: Any) -> list[Difference]:
    changeable = [item for item in differences if item.state != "fixed"]
    if not changeable:
        return differences
    try:
        await put()
    except APIError as error:
        # The server knows limits of its own, such as those of an account.
        remedy = f"The server refuses the change: {error.description}"
        return [dataclasses.replace(item, state="fixed", remedy=remedy) for item in differences]
    return differences


async def _stream(jetstream: JetStreamContext, stream: Stream) -> list[Difference]:
    what = f"stream {stream.name}"
    try:
        config = (await jetstream.stream_info(stream.name)).config
    except NotFoundError:
        return [Difference("missing", what)]
    anew = (
        "NATS cannot change it in place: copy what is to be kept, delete the stream with "
        f"`nats stream rm {stream.name}`, and apply again."
    )
    found = [
        _differs(what, "subjects", sorted(stream.subjects), sorted(config.subjects or ())),
        _differs(what, "sources", sorted(_told(stream)), sorted(_found(config))),
        _differs(what, "max_age", stream.max_age.total_seconds(), config.max_age or 0.0),
        _differs(what, "duplicate_window", _window(stream), config.duplicate_window),
        _differs(what, "discard", "old", _word(config.discard)),
        _differs(what, "no_ack", False, bool(config.no_ack)),
        *(_differs(what, field, UNBOUNDED, getattr(config, field)) for field in BOUNDS),
        _differs(what, "max_consumers", stream.max_consumers, config.max_consumers),
        _differs(what, "storage", stream.storage, _word(config.storage), anew),
        _differs(what, "retention", stream.retention, _word(config.retention), anew),
    ]
    if stream.max_bytes != -1:
        # Without a bound in the table any bound is right: whoever runs the server knows its disk.
        found.append(_differs(what, "max_bytes", stream.max_bytes, config.max_bytes))
    found.append(_fewer(what, "replicas", stream.replicas, config.num_replicas or 1))
    return [item for item in found if item]


def _window(stream: Stream) -> float:
    # The server refuses a window that is longer than what it covers.
    return min(DUPLICATE_WINDOW, stream.max_age.total_seconds())


def _told(stream: Stream) -> list[tuple[str, str]]:
    return [(source.stream, source.pattern) for source in stream.sources]


def _found(config: StreamConfig) -> list[tuple[str, str]]:
    return [(source.name, source.filter_subject or "") for source in config.sources or ()]


async def _consumer(jetstream: JetStreamContext, consumer: Consumer) -> list[Difference]:
    what = f"consumer {consumer.durable} of {consumer.stream}"
    try:
        info = await jetstream.consumer_info(consumer.stream, consumer.durable)
    except NotFoundError:
        return [Difference("missing", what)]
    config = info.config
    anew = (
        f"NATS cannot change it in place: delete the consumer with `nats consumer rm {consumer.stream} "
        f"{consumer.durable}` and apply again; it then reads the stream from its beginning, and what is known already "
        "is dropped."
    )
    resumed = f"An administrator wanted that; `nats consumer resume {consumer.stream} {consumer.durable}` ends it."
    patterns = config.filter_subjects or ([config.filter_subject] if config.filter_subject else [])
    found = [
        _differs(what, "patterns", sorted(consumer.patterns), sorted(patterns)),
        _differs(what, "ack_wait", consumer.ack_wait.total_seconds(), config.ack_wait),
        _differs(what, "max_deliver", consumer.max_deliver, config.max_deliver),
        _differs(what, "max_ack_pending", consumer.max_ack_pending, config.max_ack_pending),
        _differs(what, "headers_only", False, bool(config.headers_only)),
        _differs(what, "backoff", [], config.backoff or []),
        _differs(what, "inactive_threshold", 0.0, config.inactive_threshold or 0.0),
        _differs(what, "replay_policy", "instant", _word(config.replay_policy), anew),
        _differs(what, "ack_policy", "explicit", _word(config.ack_policy), anew),
        _differs(what, "deliver_policy", "all", _word(config.deliver_policy), anew),
        _differs(what, "deliver_subject", None, config.deliver_subject or None, anew),
        _differs(what, "paused", False, bool(info.paused), resumed),
    ]
    return [item for item in found if item]


async def _bucket(jetstream: JetStreamContext, bucket: Bucket) -> list[Difference]:
    what = f"bucket {bucket.name}"
    try:
        config = (await jetstream.stream_info(bucket.stream)).config
    except NotFoundError:
        return []
    found = [
        _fewer(what, "history", bucket.history, config.max_msgs_per_subject),
        _fewer(what, "replicas", bucket.replicas, config.num_replicas or 1),
    ]
    return [item for item in found if item]


def _fewer(what: str, field: str, wanted: int, found: int) -> Difference | None:
    """Return the difference where there are fewer than wanted: whoever runs the server may keep more of them."""
    return _differs(what, field, wanted, found) if found < wanted else None


def _differs(what: str, field: str, wanted: Any, found: Any, remedy: str = "") -> Difference | None:
    """Return the difference, if there is one; what needs a remedy the server does not change."""
    state: State = "fixed" if remedy else "different"
    return None if wanted == found else Difference(state, what, field, wanted, found, remedy)


def _word(value: Any) -> str:
    return str(getattr(value, "value", value))


async def _put_stream(jetstream: JetStreamContext, stream: Stream) -> None:
    try:
        config = (await jetstream.stream_info(stream.name)).config
    except NotFoundError:
        await jetstream.add_stream(_new(stream))
        return
    # What the table says nothing of stays as somebody has set it.
    config.subjects = list(stream.subjects) or None
    config.sources = _sources(stream)
    config.max_age = stream.max_age.total_seconds()
    config.duplicate_window = _window(stream)
    config.discard, config.discard_new_per_subject = DiscardPolicy.OLD, False
    config.no_ack = False
    config.max_msgs = config.max_msgs_per_subject = config.max_msg_size = UNBOUNDED
    config.max_consumers = stream.max_consumers
    if stream.max_bytes != -1:
        config.max_bytes = stream.max_bytes
    config.num_replicas = max(stream.replicas, config.num_replicas or 1)
    await jetstream.update_stream(config)


def _new(stream: Stream) -> StreamConfig:
    return StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects) or None,
        sources=_sources(stream),
        max_age=stream.max_age.total_seconds(),
        max_bytes=stream.max_bytes,
        max_consumers=stream.max_consumers,
        storage=StorageType(stream.storage),
        retention=RetentionPolicy(stream.retention),
        num_replicas=stream.replicas,
        duplicate_window=_window(stream),
    )


def _sources(stream: Stream) -> list[StreamSource] | None:
    return [StreamSource(source.stream, filter_subject=source.pattern) for source in stream.sources] or None


async def _put_consumer(jetstream: JetStreamContext, consumer: Consumer) -> None:
    try:
        # What the server does not change stays, so that the rest can be changed.
        config = (await jetstream.consumer_info(consumer.stream, consumer.durable)).config
    except NotFoundError:
        config = ConsumerConfig(
            durable_name=consumer.durable, ack_policy=AckPolicy.EXPLICIT, deliver_policy=DeliverPolicy.ALL
        )
    config.ack_wait = consumer.ack_wait.total_seconds()
    config.max_deliver = consumer.max_deliver
    config.max_ack_pending = consumer.max_ack_pending
    config.filter_subject, config.filter_subjects = None, list(consumer.patterns)
    config.headers_only = config.backoff = config.inactive_threshold = None
    await jetstream.add_consumer(consumer.stream, config)


async def _put_bucket(jetstream: JetStreamContext, bucket: Bucket) -> None:
    config = (await jetstream.stream_info(bucket.stream)).config
    config.max_msgs_per_subject = max(bucket.history, config.max_msgs_per_subject)
    config.num_replicas = max(bucket.replicas, config.num_replicas or 1)
    await jetstream.update_stream(config)
