"""Writes a line of JSON into the log for each message that a bus sends or receives, where somebody wants to read that.

The logger is `openvibe.wire`, at the level DEBUG. Where it is off, a bus stays what it is and nothing is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, cast

import orjson

from openvibe.bus.protocol import Bus, Handler, Message, Pull, ServeHandler, Unsubscribe
from openvibe.errors import BusError

logger = logging.getLogger("openvibe.wire")
Action = Literal["message_sent", "message_received"]


def logged(bus: Bus, component: str) -> Bus:
    """Return a bus whose messages are logged, if `openvibe.wire` is at DEBUG by now; else the bus itself."""
    return cast("Bus", _LoggedBus(bus, component)) if logger.isEnabledFor(logging.DEBUG) else bus


class _LoggedBus:
    """A bus around another one; what carries no messages goes straight there."""

    def __init__(self, bus: Bus, component: str) -> None:
        self._bus = bus
        self._component = component

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        await self._bus.publish(subject, data, headers=headers)
        self._sent(Message(subject, data, headers or {}))

    async def store(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        await self._bus.store(subject, data, headers=headers)
        self._sent(Message(subject, data, headers or {}))

    async def store_all(self, messages: Sequence[Message]) -> Sequence[BusError | None]:
        faults = await self._bus.store_all(messages)
        for message, fault in zip(messages, faults, strict=True):
            if fault is None:
                self._sent(message)
        return faults

    async def subscribe(self, pattern: str, handler: Handler) -> Unsubscribe:
        async def hear(message: Message) -> None:
            self._received(message)
            await handler(message)

        return await self._bus.subscribe(pattern, hear)

    async def request(
        self, subject: str, data: bytes, *, timeout: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        self._sent(Message(subject, data, headers or {}))
        answer = await self._bus.request(subject, data, timeout=timeout, headers=headers)
        self._received(answer)
        return answer

    async def serve(self, pattern: str, handler: ServeHandler, *, queue: str = "") -> Unsubscribe:
        return await self._bus.serve(pattern, self._serving(handler), queue=queue)

    async def serve_service(
        self, name: str, *, version: str, description: str = "", endpoints: Mapping[str, ServeHandler]
    ) -> Unsubscribe:
        heard = {place: self._serving(handler) for place, handler in endpoints.items()}
        return await self._bus.serve_service(name, version=version, description=description, endpoints=heard)

    async def pull(self, stream: str, *, durable: str, patterns: Sequence[str]) -> Pull:
        return _LoggedPull(await self._bus.pull(stream, durable=durable, patterns=patterns), self)

    def _serving(self, handler: ServeHandler) -> ServeHandler:
        async def answer(message: Message) -> bytes:
            self._received(message)
            data = await handler(message)
            self._sent(Message(message.reply, data))
            return data

        return answer

    def _sent(self, message: Message) -> None:
        _log(self._component, "message_sent", message)

    def _received(self, message: Message) -> None:
        _log(self._component, "message_received", message)


class _LoggedPull:
    """A reader around another one."""

    def __init__(self, pull: Pull, bus: _LoggedBus) -> None:
        self._pull = pull
        self._bus = bus

    async def fetch(self, most: int, *, timeout: float) -> Sequence[Message]:
        messages = await self._pull.fetch(most, timeout=timeout)
        for message in messages:
            self._bus._received(message)
        return messages

    async def paused_until(self) -> str:
        return await self._pull.paused_until()

    async def kept_since(self) -> datetime | None:
        return await self._pull.kept_since()

    async def close(self) -> None:
        await self._pull.close()


def _log(component: str, action: Action, message: Message) -> None:
    body = _body(message.data)
    told = {
        "timestamp": datetime.now(UTC).isoformat(),
        "level": "debug",
        "component": component,
        "action": action,
        "topic": message.subject,
        "message_id": body.get("id") or message.headers.get("Nats-Msg-Id", ""),
        "message_type": body.get("type") or message.headers.get("CG-Msg-Type", ""),
    }
    logger.debug("%s", orjson.dumps(told, default=str).decode())


def _body(data: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
