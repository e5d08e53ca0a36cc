"""Streams in Redis: one Redis Stream each, a consumer group for each durable reader."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from openvibe.bus import redis_frame
from openvibe.bus.protocol import Message, matches
from openvibe.protocol.streams import Stream

#: How long one look for new messages lasts, in seconds; between two looks come those that are delivered again.
LOOK_SECONDS = 0.5
#: One name for all readers of a group: who holds a message does not matter, only for how long.
READER = "reader"
#: So long ago was a refused message handed out, as Redis is told; longer than any reader waits, in milliseconds.
LONG_AGO = 24 * 60 * 60 * 1000

#: Keeps a message in every stream that wants it, then tells whoever listens; returns how many streams want it.
#: KEYS: the table of streams. ARGV: prefix, subject, frame, message id, window (ms), whether a stream must want it.
KEEP = """
local prefix, subject, frame, id, window, must = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wanted = {}
local streams = redis.call('HGETALL', KEYS[1])
for place = 1, #streams, 2 do
  local stream = cjson.decode(streams[place + 1])
  for _, pattern in ipairs(stream.patterns) do
    if string.match(subject, pattern) then
      wanted[#wanted + 1] = {name = streams[place], max_age = stream.max_age, max_bytes = stream.max_bytes}
      break
    end
  end
end
if must == '1' and #wanted == 0 then
  return 0
end
for _, stream in ipairs(wanted) do
  local key = prefix .. ':stream:' .. stream.name
  local seen = prefix .. ':seen:' .. stream.name .. ':' .. id
  if id == '' or redis.call('SET', seen, '1', 'NX', 'PX', window) then
    local oldest = string.format('%.0f', now - stream.max_age)
    redis.call('XADD', key, 'MINID', oldest, '*', 's', subject, 'f', frame)
    if stream.max_bytes > 0 then
      local used = redis.call('MEMORY', 'USAGE', key)
      if used > stream.max_bytes then
        local length = redis.call('XLEN', key)
        redis.call('XTRIM', key, 'MAXLEN', math.max(1, math.floor(length * stream.max_bytes / used)))
      end
    end
  end
end
redis.call('PUBLISH', prefix .. ':' .. subject, frame)
return #wanted
"""

#: Writes down what a stream keeps: what it was said to keep, and what is said now. KEYS: the table. ARGV: name, JSON.
ENSURE = """
local stream = cjson.decode(ARGV[2])
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if kept then
  kept = cjson.decode(kept)
  local known = {}
  for _, pattern in ipairs(stream.patterns) do
    known[pattern] = true
  end
  for _, pattern in ipairs(kept.patterns) do
    if not known[pattern] then
      table.insert(stream.patterns, pattern)
    end
  end
  stream.max_age = math.max(stream.max_age, kept.max_age)
  if stream.max_bytes <= 0 or kept.max_bytes <= 0 then
    stream.max_bytes = -1
  else
    stream.max_bytes = math.max(stream.max_bytes, kept.max_bytes)
  end
end
return redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(stream))
"""


def described(stream: Stream) -> str:
    """Return what the table of streams says of one."""
    patterns = [redis_frame.lua_pattern(pattern) for pattern in stream.subjects]
    max_age = int(stream.max_age.total_seconds() * 1000)
    return json.dumps({"patterns": patterns, "max_age": max_age, "max_bytes": stream.max_bytes})


class RedisPull:
    """A durable reader: a consumer group of a Redis Stream."""

    def __init__(  # everything that one reader is made of
        self,
        client: Redis,
        reading: Redis,
        key: str,
        group: str,
        *,
        patterns: Sequence[str],
        ack_wait: float,
        translated: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._client: Any = client
        self._reading: Any = reading
        self._key = key
        self._group = group
        self._patterns = patterns
        self._ack_wait = int(ack_wait * 1000)
        self._translated = translated

    async def fetch(self, most: int, *, timeout: float) -> Sequence[Message]:
        """See `Pull.fetch`."""
        deadline = time.monotonic() + timeout
        with self._translated(f"The stream {self._key} cannot be read"):
            while True:
                found = await self._again(most)
                if len(found) < most:
                    wait = 0 if found else min(LOOK_SECONDS, deadline - time.monotonic())
                    found += await self._new(most - len(found), wait)
                if found or time.monotonic() >= deadline:
                    return found

    async def paused_until(self) -> str:
        """See `Pull.paused_until`; here nobody can."""
        return ""

    async def kept_since(self) -> datetime | None:
        """See `Pull.kept_since`. Redis calls an entry by when it came, in milliseconds."""
        with self._translated(f"The stream {self._key} cannot be read"):
            [seconds, _], oldest = await self._client.time(), await self._client.xrange(self._key, count=1)
        return datetime.fromtimestamp(int(oldest[0][0].partition(b"-")[0]) / 1000 if oldest else seconds, UTC)

    async def close(self) -> None:
        """See `Pull.close`."""

    async def _again(self, most: int) -> list[Message]:
        """Take over what was handed out and not acknowledged in time, the oldest first."""
        found: list[Message] = []
        start = "0-0"
        while len(found) < most:
            start, entries, *_ = await self._command(
                "XAUTOCLAIM", self._key, self._group, READER, self._ack_wait, start, "COUNT", most - len(found)
            )
            again = [await self._redelivered(name, fields) for name, fields in entries if fields]
            found += await self._wanted(again)
            if start in (b"0-0", "0-0"):
                break
        return found

    async def _redelivered(self, name: bytes, fields: dict[bytes, bytes]) -> Message:
        pending = await self._client.xpending_range(self._key, self._group, name, name, 1)
        return self._message(name, fields, int(pending[0]["times_delivered"]) if pending else 1)

    async def _new(self, most: int, seconds: float) -> list[Message]:
        # To Redis no time at all means for ever.
        wait = ("BLOCK", max(1, int(seconds * 1000))) if seconds > 0 else ()
        answer = await self._reading.execute_command(
            "XREADGROUP", "GROUP", self._group, READER, "COUNT", most, *wait, "STREAMS", self._key, ">"
        )
        return await self._wanted(
            [self._message(name, fields, 1) for _, found in answer or () for name, fields in found]
        )

    async def _wanted(self, messages: Sequence[Message]) -> list[Message]:
        """Return those that fit; a group knows no patterns, so the others are acknowledged."""
        fitting = [each for each in messages if any(matches(pattern, each.subject) for pattern in self._patterns)]
        for message in messages:
            if message not in fitting and message.acknowledge:
                await message.acknowledge()
        return fitting

    def _message(self, name: bytes, fields: dict[bytes, bytes], deliveries: int) -> Message:
        async def acknowledge() -> None:
            with self._translated(f"A message of {self._key} was not acknowledged"):
                await self._command("XACK", self._key, self._group, name)

        async def refuse(delay: float = 0.0) -> None:
            # It comes again when it has been idle for as long as one may take to acknowledge.
            idle = max(0, self._ack_wait - int(delay * 1000)) if delay else LONG_AGO
            with self._translated(f"A message of {self._key} was not refused"):
                await self._client.xclaim(self._key, self._group, READER, 0, [name], idle=idle, justid=True)

        # Whoever adds to a stream by hand may call its fields otherwise.
        message = redis_frame.loads(fields.get(b"f", b""), fields.get(b"s", b"").decode(errors="replace"))
        return Message(
            message.subject, message.data, message.headers, "", acknowledge, refuse, deliveries,
            f"{self._key}:{name.decode()}",
        )  # fmt: skip

    async def _command(self, *words: Any) -> Any:
        return await self._client.execute_command(*words)
