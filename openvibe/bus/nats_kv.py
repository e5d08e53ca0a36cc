"""Kept values in NATS KV, readable by any other client: bucket by bucket, with keys encoded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, Header, RawStreamMsg
from nats.js.errors import APIError, BucketNotFoundError, NoStreamResponseError, NotFoundError
from nats.js.kv import KV_DEL, KV_OP, KeyValue

from openvibe.bus.mailbox import Mailbox
from openvibe.bus.nats_watch import BATCH, FORGOTTEN_AFTER, LOOK_SECONDS, Watch, deleted
from openvibe.bus.protocol import HISTORY, Entry, Unsubscribe, WatchHandler
from openvibe.errors import RevisionConflict
from openvibe.protocol import keys

#: What the server answers when a subject's last sequence is another one, and when a stream of this name exists.
WRONG_SEQUENCE = (10071, 10164)
NAME_IN_USE = 10058


class Buckets:
    """The buckets of one connection; a cluster keeps `replicas` copies of those that are made here.

    Whoever may put a value may by a header empty the whole bucket, unless `emptied` is false: then nobody purges, and
    what is deleted leaves its history.
    """

    def __init__(self, stream: JetStreamContext, replicas: int = 1, *, emptied: bool = True) -> None:
        self._stream = stream
        self._replicas = replicas
        self._emptied = emptied
        self._known: dict[str, KeyValue] = {}
        self._watches: set[Watch] = set()

    async def put(self, bucket: str, key: str, value: bytes, *, revision: int | None) -> int:
        """Keep a value."""
        await self._opened(bucket)
        if revision == 0:
            # A deletion is a revision too, and whoever asks for no value does not know its number.
            last = await self.entry(bucket, key)
            revision = last.revision if last and last.deleted else 0
        return await self._write(bucket, key, value, revision, {})

    async def delete(self, bucket: str, key: str, *, revision: int | None) -> int:
        """Write the mark that a value is gone."""
        last = await self.entry(bucket, key)
        if last is None or last.deleted:
            if revision and revision != (last.revision if last else 0):
                raise RevisionConflict(f"{bucket}/{key} has no value, hence not revision {revision}")
            return 0
        return await self._write(bucket, key, b"", revision, {KV_OP: KV_DEL})

    async def entry(self, bucket: str, key: str) -> Entry | None:
        """Return the last revision of a key."""
        try:
            found = await self._stream.get_msg(f"KV_{bucket}", subject=_subject(bucket, key))
        except NotFoundError:
            return None
        return _entry(key, found)

    async def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return the keys that have a value.

        The library's own way waits for no first message if the server says that none is left to be sent, which it may
        say before that message has arrived: then it knows no keys.
        """
        if await self._opened(bucket, make=False) is None:
            return []
        stream = f"KV_{bucket}"
        wanted = ConsumerConfig(
            filter_subject=f"$KV.{bucket}.>",
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            headers_only=True,
            mem_storage=True,
            inactive_threshold=FORGOTTEN_AFTER,
        )
        made = await self._stream.add_consumer(stream, wanted)
        reader = await self._stream.pull_subscribe_bind(consumer=made.name, stream=stream)
        try:
            present: dict[str, bool] = {}
            left = made.num_pending or 0
            while left:
                try:
                    messages = await reader.fetch(min(left, BATCH), timeout=LOOK_SECONDS)
                except TimeoutError:
                    # What was to come may have gone meanwhile. If it has not, some keys are no answer.
                    if (await reader.consumer_info()).num_pending:
                        raise
                    break
                for message in messages:
                    present[message.subject.removeprefix(f"$KV.{bucket}.")] = not deleted(message.headers)
                    left = message.metadata.num_pending
        finally:
            with contextlib.suppress(NotFoundError):
                await self._stream.delete_consumer(stream, made.name)
            await reader.unsubscribe()
        names = (keys.decoded(name) for name, there in present.items() if there)
        return sorted(key for key in names if key.startswith(prefix))

    async def history(self, bucket: str, key: str) -> list[Entry]:
        """Return the last revisions of a key, one question each."""
        found: list[Entry] = []
        while len(found) < HISTORY:
            after = found[-1].revision + 1 if found else 1
            try:
                subject = _subject(bucket, key)
                found.append(
                    _entry(key, await self._stream.get_msg(f"KV_{bucket}", seq=after, subject=subject, next=True))
                )
            except NotFoundError:
                break
        return found

    async def watch(self, bucket: str, handler: WatchHandler) -> Unsubscribe:
        """Hear every value, then every change."""
        watch = Watch(
            self._stream, bucket, Mailbox(handler, about=f"Bucket {bucket}"), lambda: self._opened(bucket, anew=True)
        )
        await watch.begin()
        self._watches.add(watch)

        async def unsubscribe() -> None:
            self._watches.discard(watch)
            await watch.end()

        return unsubscribe

    async def close(self) -> None:
        """End all watchers."""
        await asyncio.gather(*[watch.end() for watch in self._watches])

    async def _write(
        self, bucket: str, key: str, value: bytes, revision: int | None, headers: Mapping[str, str]
    ) -> int:
        expected = {} if revision is None else {Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(revision)}
        try:
            done = await self._stream.publish(_subject(bucket, key), value, headers={**headers, **expected} or None)
        except APIError as error:
            if error.err_code in WRONG_SEQUENCE:
                raise RevisionConflict(f"{bucket}/{key} has another revision than {revision}") from error
            raise
        except NoStreamResponseError:
            # Somebody has deleted the bucket; the next one makes it again.
            self._known.pop(bucket, None)
            raise
        return int(done.seq)

    async def _opened(self, bucket: str, *, make: bool = True, anew: bool = False) -> KeyValue | None:
        if anew:
            self._known.pop(bucket, None)
        if bucket not in self._known:
            try:
                self._known[bucket] = await self._stream.key_value(bucket)
            except BucketNotFoundError:
                if not make:
                    return None
                self._known[bucket] = await self._made(bucket)
            if not self._emptied:
                await self._close(bucket)
        return self._known[bucket]

    async def _close(self, bucket: str) -> None:
        config = (await self._stream.stream_info(f"KV_{bucket}")).config
        if config.allow_rollup_hdrs:
            await self._stream.update_stream(config, allow_rollup_hdrs=False)

    async def _made(self, bucket: str) -> KeyValue:
        try:
            return await self._stream.create_key_value(bucket=bucket, history=HISTORY, replicas=self._replicas)
        except APIError as error:
            if error.err_code != NAME_IN_USE:
                raise
            # Somebody was quicker, with other settings.
            return await self._stream.key_value(bucket)


def _entry(key: str, found: RawStreamMsg) -> Entry:
    return Entry(key, found.data or b"", found.seq or 0, found.time or datetime.now(UTC), deleted(found.headers))


def _subject(bucket: str, key: str) -> str:
    return f"$KV.{bucket}.{keys.encoded(key)}"
