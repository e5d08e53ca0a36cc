"""Requests over Redis: who serves is written down, and each request goes to one of every queue."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.asyncio import Redis

from openvibe.bus import redis_frame, service
from openvibe.bus.protocol import Message, ServeHandler, Unsubscribe
from openvibe.bus.redis_channels import Channels
from openvibe.errors import NoResponders, RequestTimeout

INBOX = "_INBOX."

#: Hands a request to one server of each queue, to every server without a queue, and to whoever listens; returns how
#: many got it. A server that nobody hears any more is forgotten. KEYS: the servers. ARGV: prefix, subject, frame, a
#: random number.
ASK = """
local prefix, subject, frame, random = unpack(ARGV)
local queues, servers = {}, redis.call('HGETALL', KEYS[1])
for place = 1, #servers, 2 do
  local server = cjson.decode(servers[place + 1])
  if string.match(subject, server.pattern) then
    local queue = server.queue == '' and 'one ' .. servers[place] or 'of ' .. server.queue
    queues[queue] = queues[queue] or {}
    table.insert(queues[queue], servers[place])
  end
end
local reached = redis.call('PUBLISH', prefix .. ':' .. subject, frame)
for _, members in pairs(queues) do
  table.sort(members)
  while #members > 0 do
    local chosen = table.remove(members, tonumber(random) % #members + 1)
    if redis.call('PUBLISH', prefix .. ':serve:' .. chosen, frame) > 0 then
      reached = reached + 1
      break
    end
    redis.call('HDEL', KEYS[1], chosen)
  end
end
return reached
"""


class Requests:
    """What this process asks and answers."""

    def __init__(
        self, client: Redis, prefix: str, publish: Callable[[str, bytes, Mapping[str, str]], Awaitable[None]]
    ) -> None:
        self.tasks = service.Tasks()
        self._client: Any = client
        self._prefix = prefix
        self._publish = publish
        self._name = secrets.token_hex(8)
        self._ask = client.register_script(ASK)
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._served: dict[str, str] = {}

    @property
    def inbox(self) -> str:
        """The pattern of channels on which answers come."""
        return f"{self._prefix}:{INBOX}{self._name}.*"

    def hear(self, channel: str, frame: bytes) -> None:
        """Take an answer to the one who waits for it."""
        answer = self._answers.get(channel.removeprefix(f"{self._prefix}:"))
        if answer is not None and not answer.done():
            answer.set_result(redis_frame.loads(frame, channel.removeprefix(f"{self._prefix}:")))

    async def request(self, subject: str, data: bytes, *, timeout: float, headers: Mapping[str, str] | None) -> Message:
        """Ask, and wait for the first answer."""
        reply = f"{INBOX}{self._name}.{secrets.token_hex(8)}"
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._answers[reply] = answer
        try:
            async with asyncio.timeout(timeout) as waiting:
                frame = redis_frame.dumps(data, headers=headers, reply=reply, subject=subject)
                arguments: list[Any] = [self._prefix, subject, frame, secrets.randbelow(2**31)]
                if not await self._ask(keys=[self._servers], args=arguments):
                    raise NoResponders(f"Nobody serves {subject!r}")
                return await answer
        except TimeoutError as error:
            if not waiting.expired():
                raise
            raise RequestTimeout(f"Nobody answered on {subject!r} within {timeout} s") from error
        finally:
            del self._answers[reply]

    async def serve(self, channels: Channels, pattern: str, handler: ServeHandler, queue: str) -> Unsubscribe:
        """Answer requests on one subject."""
        name = secrets.token_hex(8)

        def hear(_channel: str, frame: bytes) -> None:
            self.tasks.start(self._respond(handler, redis_frame.loads(frame, pattern)))

        end = await channels.hear(f"{self._prefix}:serve:{name}", hear)
        self._served[name] = json.dumps({"pattern": redis_frame.lua_pattern(pattern), "queue": queue})
        await self._command("HSET", self._servers, name, self._served[name])

        async def unsubscribe() -> None:
            if self._served.pop(name, None) is not None and channels.connected:
                await self._command("HDEL", self._servers, name)
            await end()

        return unsubscribe

    async def announce(self) -> None:
        """Write down anew who serves here: the server may have forgotten, or others while nobody was heard."""
        for name, described in self._served.items():
            await self._command("HSET", self._servers, name, described)

    async def leave(self) -> None:
        """Serve no more."""
        names = list(self._served)
        self._served.clear()
        if names:
            await self._command("HDEL", self._servers, *names)

    @property
    def _servers(self) -> str:
        return f"{self._prefix}:servers"

    async def _respond(self, handler: ServeHandler, message: Message) -> None:
        data, headers = await service.answer(handler, message)
        await self._publish(message.reply, data, headers)

    async def _command(self, *words: str) -> None:
        await self._client.execute_command(*words)
