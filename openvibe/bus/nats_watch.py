"""Following a NATS KV bucket: a consumer that is made anew, after what was heard, whenever it or the server was away.

The library's own watcher notices a lost consumer only after two missed heartbeats, and may stay deaf if that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError
from nats.errors import Error as NATSError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.kv import KV_DEL, KV_MARKER_REASON, KV_OP, KV_PURGE

from openvibe import cancelling
from openvibe.bus.mailbox import MOST_WAITING, Mailbox
from openvibe.bus.protocol import Entry
from openvibe.protocol import keys

logger = logging.getLogger(__name__)

#: How many changes are read at once, and how long one look for them lasts, in seconds.
BATCH = 256
LOOK_SECONDS = 2.0
RETRY_PAUSE = 0.25
#: For how long the server keeps the consumer of a watcher that does not look, in seconds.
FORGOTTEN_AFTER = 60.0


class Watch:
    """One watcher of one bucket."""

    def __init__(
        self, stream: JetStreamContext, bucket: str, mailbox: Mailbox[Entry], made: Callable[[], Awaitable[object]]
    ) -> None:
        """`made` makes the bucket if it is missing."""
        self._stream = stream
        self._bucket = bucket
        self._mailbox = mailbox
        self._made = made
        self._seen = 0
        self._before = 0
        self._created: datetime | None = None
        self._consumer: JetStreamContext.PullSubscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Find the bucket, and follow it from now on."""
        await self._open()
        self._task = asyncio.create_task(self._follow())

    async def end(self) -> None:
        """Hear nothing any more; harmless twice."""
        self._mailbox.close()
        task, self._task = self._task, None
        if task is not None:
            await cancelling.cancel([task])
        await self._drop()

    async def _follow(self) -> None:
        while True:
            try:
                if self._consumer is None:
                    await self._open()
                await self._look()
            except ConnectionClosedError:
                # For good. The library also says so when this task is cancelled after that.
                return
            except Exception as error:
                # Whoever watches would never hear that nobody follows any more.
                if not isinstance(error, (NATSError, OSError, ValueError)):
                    logger.exception("Bucket %s could not be followed; it is tried again", self._bucket)
                await self._drop()
                await asyncio.sleep(RETRY_PAUSE)

    async def _look(self) -> None:
        if self._consumer is None:
            return
        # What a slow handler cannot take yet stays in the bucket.
        await self._mailbox.room(MOST_WAITING - BATCH)
        # No news is no fault.
        with contextlib.suppress(TimeoutError):
            for message in await self._consumer.fetch(BATCH, timeout=LOOK_SECONDS):
                self._take(message)

    async def _open(self) -> None:
        await self._made()
        found = await self._stream.stream_info(f"KV_{self._bucket}")
        last = int(found.state.last_seq)
        if last < self._seen or found.created != self._created:
            # Somebody has made the bucket anew, in which revisions begin again.
            self._seen, self._created = 0, found.created
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=FORGOTTEN_AFTER)
        if self._seen:
            config.deliver_policy, config.opt_start_seq = DeliverPolicy.BY_START_SEQUENCE, self._seen + 1
        else:
            config.deliver_policy, self._before = DeliverPolicy.LAST_PER_SUBJECT, last
        self._consumer = await self._stream.pull_subscribe(
            f"$KV.{self._bucket}.>", stream=f"KV_{self._bucket}", config=config
        )

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            # A connection that is gone has forgotten the consumer already.
            with contextlib.suppress(NATSError, OSError, ValueError):
                await consumer.unsubscribe()

    def _take(self, message: Msg) -> None:
        revision = message.metadata.sequence.stream
        if revision <= self._seen:
            return
        self._seen = revision
        gone = deleted(message.headers)
        # What was deleted before anybody watched is no news.
        if not (gone and revision <= self._before):
            key = keys.decoded(message.subject.removeprefix(f"$KV.{self._bucket}."))
            created = message.metadata.timestamp or datetime.now(UTC)
            self._mailbox.take(Entry(key, b"" if gone else message.data, revision, created, gone))


def deleted(headers: dict[str, str] | None) -> bool:
    """Tell whether a revision is a mark that the value is gone."""
    found = headers or {}
    return found.get(KV_OP) in (KV_DEL, KV_PURGE) or KV_MARKER_REASON in found
