"""The one Redis connection on which this process hears: it comes back by itself, with everything it listened to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from openvibe import cancelling
from openvibe.errors import BusError

logger = logging.getLogger(__name__)

RECONNECT_PAUSE = 0.25
#: How often a silent server is asked whether it is there, in seconds; an unanswered question means that it is not.
PING_PAUSE = 2.0
#: How long a server may take to say that it knows of a subscription, in seconds.
CONFIRM_TIMEOUT = 2.0

#: Hears what was said (channel, bytes), as fast as it comes.
Hear = Callable[[str, bytes], None]


class Channels:
    """Channels and patterns of channels, and who hears them."""

    def __init__(self, client: Redis, always: str, hear: Hear) -> None:
        """Keep the pattern `always` open, because a connection that listens to nothing cannot be watched."""
        self.connected = False
        self._client = client
        self._heard: dict[tuple[bool, str], list[Hear]] = {(True, always): [hear]}
        self._confirmed: dict[str, asyncio.Event] = {}
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._returns: list[Callable[[], Awaitable[None]]] = []

    async def open(self) -> None:
        """Connect, and stay connected from now on. Raises what the client raises if nobody answers."""
        await self._listen_anew()
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Hear nothing any more."""
        self._heard.clear()
        self._returns.clear()
        task, self._task = self._task, None
        if task is not None:
            await cancelling.cancel([task])
        await self._drop()

    def on_return(self, act: Callable[[], Awaitable[None]]) -> Callable[[], None]:
        """Do this whenever the connection has come back; the returned function ends that."""
        self._returns.append(act)
        return lambda: self._returns.remove(act) if act in self._returns else None

    async def hear(self, channel: str, hear: Hear, *, wild: bool = False) -> Callable[[], Awaitable[None]]:
        """Hear a channel, or with `wild` a pattern of channels; return as soon as the server knows of it.

        While the server is away it is heard from its return on. The returned function ends that.
        """
        hearers = self._heard.setdefault((wild, channel), [])
        hearers.append(hear)
        if len(hearers) == 1:
            self._confirmed[channel] = asyncio.Event()
        await self._ask("PSUBSCRIBE" if wild else "SUBSCRIBE", channel, send=len(hearers) == 1)

        async def end() -> None:
            remaining = self._heard.get((wild, channel), [])
            if hear not in remaining:
                return
            remaining.remove(hear)
            if not remaining:
                del self._heard[wild, channel]
                self._confirmed.pop(channel, None)
                await self._ask("PUNSUBSCRIBE" if wild else "UNSUBSCRIBE", channel, send=True)

        return end

    async def _ask(self, command: str, channel: str, *, send: bool) -> None:
        confirmed = self._confirmed.get(channel)
        if not self.connected:
            return
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            if send:
                await self._send(command, channel)
            if confirmed is not None:
                async with asyncio.timeout(CONFIRM_TIMEOUT):
                    await confirmed.wait()

    async def _work(self) -> None:
        while True:
            try:
                if self._connection is None:
                    await self._listen_anew()
                    await self._tell_return()
                self._take(await self._answer())
            except (RedisError, OSError, TimeoutError) as error:
                if self.connected:
                    logger.info("Redis: %s", error or type(error).__name__)
                await self._drop()
                await asyncio.sleep(RECONNECT_PAUSE)
            except Exception:
                logger.exception("Redis: hearing broke off; it begins anew")
                await self._drop()
                await asyncio.sleep(RECONNECT_PAUSE)

    async def _tell_return(self) -> None:
        for act in list(self._returns):
            try:
                await act()
            except BusError as error:
                raise RedisConnectionError(str(error)) from error

    async def _listen_anew(self) -> None:
        self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        listened: set[tuple[bool, str]] = set()
        try:
            # Somebody may begin to hear a channel while the server confirms the others.
            while wanted := set(self._heard) - listened:
                for wild, channel in wanted:
                    await self._send("PSUBSCRIBE" if wild else "SUBSCRIBE", channel)
                listened |= wanted
                await self._confirm()
        except BaseException:
            await self._drop()
            raise
        self.connected = True

    async def _confirm(self) -> None:
        # The answer to this question comes after those about the channels.
        await self._send("PING")
        async with asyncio.timeout(CONFIRM_TIMEOUT):
            while (heard := await self._answer())[0] != b"pong":
                self._take(heard)

    async def _answer(self) -> list[Any]:
        """Return what the server says next; ask it when it is silent."""
        for _ in range(2):
            if self._connection is None or not self._connection.is_connected:
                raise RedisConnectionError("The connection is gone")
            heard = await self._connection.read_response(timeout=PING_PAUSE, disconnect_on_error=False)
            if heard is not None:
                return list(heard) if isinstance(heard, list) else [heard]
            await self._send("PING")
        raise TimeoutError("Redis does not answer")

    async def _send(self, *command: str) -> None:
        # The client would connect anew, silently, and listen to nothing.
        if self._connection is None or not self._connection.is_connected:
            raise RedisConnectionError("The connection is gone")
        await self._connection.send_command(*command, check_health=False)

    def _take(self, heard: list[Any]) -> None:
        if heard[0] in (b"subscribe", b"psubscribe"):
            if (confirmed := self._confirmed.get(_text(heard[1]))) is not None:
                confirmed.set()
        elif heard[0] in (b"message", b"pmessage"):
            for hear in list(self._heard.get((heard[0] == b"pmessage", _text(heard[1])), ())):
                try:
                    hear(_text(heard[-2]), heard[-1])
                except Exception:
                    # Anybody may say anything here; what is not understood must not make this process deaf.
                    logger.exception("What was said on %s is not understood", _text(heard[-2]))

    async def _drop(self) -> None:
        self.connected = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
