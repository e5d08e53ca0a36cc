"""Kept values in Redis: a hash of last revisions for each bucket, a list of the last ones for each key.

An entry is a line `revision milliseconds deleted`, a line feed, and the value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from redis.asyncio import Redis

from openvibe.bus.mailbox import Mailbox
from openvibe.bus.protocol import HISTORY, Entry, Unsubscribe, WatchHandler
from openvibe.bus.redis_channels import Channels
from openvibe.errors import RevisionConflict
from openvibe.protocol import keys

#: Writes a revision if the last one is what is expected; returns its number, minus the last one's if not, or 0 if
#: there is nothing to delete. KEYS: last revisions, the key's history, the bucket's counter. ARGV: key, value, whether
#: it is a deletion, the expected revision or nothing, the length of histories, the channel of changes.
WRITE = """
local key, value, deleted, expected, history, channel = unpack(ARGV)
local entry = redis.call('HGET', KEYS[1], key)
local last, gone = 0, false
if entry then
  local revision, mark = string.match(entry, '^(%d+) %d+ (%d)')
  last, gone = tonumber(revision), mark == '1'
end
if expected ~= '' and tonumber(expected) ~= last and not (expected == '0' and gone) then
  return -1 - last
end
if deleted == '1' and (last == 0 or gone) then
  return 0
end
local revision = redis.call('INCR', KEYS[3])
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local written = revision .. ' ' .. now .. ' ' .. deleted .. '\\n' .. value
redis.call('HSET', KEYS[1], key, written)
redis.call('RPUSH', KEYS[2], written)
redis.call('LTRIM', KEYS[2], -tonumber(history), -1)
redis.call('PUBLISH', channel, key .. ' ' .. written)
return revision
"""


class Buckets:
    """The buckets of one connection."""

    def __init__(self, client: Redis, channels: Channels, prefix: str) -> None:
        self._client: Any = client
        self._channels = channels
        self._prefix = prefix
        self._write = client.register_script(WRITE)

    async def put(self, bucket: str, key: str, value: bytes, *, revision: int | None) -> int:
        """Keep a value."""
        return await self._written(bucket, key, value, deleted=False, revision=revision)

    async def delete(self, bucket: str, key: str, *, revision: int | None) -> int:
        """Write the mark that a value is gone."""
        return await self._written(bucket, key, b"", deleted=True, revision=revision)

    async def entry(self, bucket: str, key: str) -> Entry | None:
        """Return the last revision of a key."""
        found = await self._client.hget(self._last(bucket), keys.encoded(key))
        return _entry(key, found) if found is not None else None

    async def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return the keys that have a value."""
        return sorted(
            entry.key for entry in await self._entries(bucket) if not entry.deleted and entry.key.startswith(prefix)
        )

    async def history(self, bucket: str, key: str) -> list[Entry]:
        """Return the last revisions of a key."""
        found = await self._client.lrange(self._history(bucket, keys.encoded(key)), 0, -1)
        return [_entry(key, each) for each in found]

    async def watch(self, bucket: str, handler: WatchHandler) -> Unsubscribe:
        """Hear every value, then every change."""
        watch = _Watch(Mailbox(handler, about=f"Bucket {bucket}", key=attrgetter("key")), lambda: self._entries(bucket))
        forget = self._channels.on_return(watch.catch_up)
        end = await self._channels.hear(self._channel(bucket), watch.hear)
        await watch.catch_up(first=True)

        async def unsubscribe() -> None:
            forget()
            watch.mailbox.close()
            await end()

        return unsubscribe

    async def _written(self, bucket: str, key: str, value: bytes, *, deleted: bool, revision: int | None) -> int:
        name = keys.encoded(key)
        answer = int(
            await self._write(
                keys=[self._last(bucket), self._history(bucket, name), f"{self._prefix}:kv:{bucket}:revision"],
                args=[name, value, int(deleted), "" if revision is None else revision, HISTORY, self._channel(bucket)],
            )
        )
        if answer < 0:
            raise RevisionConflict(f"{bucket}/{key} has revision {-1 - answer}, not {revision}")
        return answer

    async def _entries(self, bucket: str) -> list[Entry]:
        found = await self._client.hgetall(self._last(bucket))
        entries = [_entry(keys.decoded(name.decode()), entry) for name, entry in found.items()]
        return sorted(entries, key=lambda entry: entry.revision)

    def _last(self, bucket: str) -> str:
        return f"{self._prefix}:kv:{bucket}:last"

    def _history(self, bucket: str, name: str) -> str:
        return f"{self._prefix}:kv:{bucket}:history:{name}"

    def _channel(self, bucket: str) -> str:
        return f"{self._prefix}:kv:{bucket}"


class _Watch:
    """What one watcher has heard: everything up to a revision."""

    def __init__(self, mailbox: Mailbox[Entry], read: Callable[[], Awaitable[Sequence[Entry]]]) -> None:
        self.mailbox = mailbox
        self._read = read
        self._seen = 0
        self._early: list[Entry] | None = []

    def hear(self, _channel: str, said: bytes) -> None:
        name, _, written = said.partition(b" ")
        entry = _entry(keys.decoded(name.decode(errors="replace")), written)
        if self._early is not None:
            self._early.append(entry)
        else:
            self._take(entry)

    async def catch_up(self, *, first: bool = False) -> None:
        """Tell what the bucket holds and was not told; what is said meanwhile waits for that."""
        self._early = self._early or []
        try:
            for entry in await self._read():
                if not (first and entry.deleted):
                    self._take(entry)
        finally:
            early, self._early = self._early, None
            for entry in early:
                self._take(entry)

    def _take(self, entry: Entry) -> None:
        if entry.revision > self._seen:
            self._seen = entry.revision
            self.mailbox.take(entry)


def _entry(key: str, written: bytes) -> Entry:
    line, _, value = written.partition(b"\n")
    revision, milliseconds, deleted = line.split(b" ")
    created = datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
    return Entry(key, value, int(revision), created, deleted == b"1")
