"""A runtime's doors to a bus: what its runs emit goes out, what others emit comes in, and requests go both ways.

Nothing is connected before somebody needs it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from openvibe import bus as buses
from openvibe import loop
from openvibe.bus import Bus, Message
from openvibe.bus.logged import logged
from openvibe.errors import BusError, ServiceError
from openvibe.ids import random_text
from openvibe.outcomes import Emission
from openvibe.protocol import envelope, headers
from openvibe.runs import Origin, Run

logger = logging.getLogger(__name__)

#: Tells a runtime its own messages.
ORIGIN = "OpenVibe-Origin"
#: How long connecting, publishing and subscribing may take, in seconds.
PATIENCE = 10.0
#: How long an operator elsewhere may take to answer where the request sets no time, in seconds.
ANSWER_PATIENCE = 60.0

#: Starts what listens to an event: its name, its payload, and where what it starts comes from.
Heard = Callable[[str, Mapping[str, Any], Origin], None]
#: Answers a request: the operator, the capability, the payload, and where the run that answers comes from.
Served = Callable[[str, str, Mapping[str, Any], Origin], Mapping[str, Any]]


class Doors:
    """One runtime's connection to its bus."""

    def __init__(self, bus: Any, *, heard: Heard, served: Served) -> None:
        self.bus: Bus = logged(buses.adapted(bus), "runtime")
        self._heard, self._served = heard, served
        self._origin = random_text(16)
        self._open = False
        self._lock = threading.Lock()
        self._serving: set[str] = set()

    def open(self) -> None:
        """Connect, and hear the events of others."""
        with self._lock:
            if not self._open:
                loop.run(self._connect(), timeout=PATIENCE)
                self._open = True

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            if self._open:
                loop.run(self.bus.close(), timeout=PATIENCE)
                self._open = False

    def serve(self, operator: str, capability: str) -> None:
        """Answer others' requests for a capability, once."""
        subject = f"operators.{operator}.request.{capability}"
        if subject in self._serving:
            return
        self.open()

        async def answer(message: Message) -> bytes:
            return await self._answer(operator, capability, message)

        loop.run(self.bus.serve(subject, answer, queue="openvibe"), timeout=PATIENCE)
        self._serving.add(subject)

    def emit(self, run: Run, emission: Emission) -> None:
        """Publish an event; a bus that is down loses it, and the run goes on."""
        operator, _, kind = emission.name.partition(".")
        subject = f"operators.{operator}.events.{kind}"
        body: dict[str, Any] = {
            "version": envelope.VERSION,
            "id": f"{run.id}/{emission.source}",
            "type": kind,
            "operator_id": operator,
            "workflow_id": run.workflow_id,
            "run_id": run.id,
            "payload": dict(emission.payload),
        }
        told = _stamped(run, "event", envelope.message_id(subject, body["id"])) | {ORIGIN: self._origin}
        self._publish(subject, envelope.dumps(body), told)

    def ask(self, run: Run, payload: Mapping[str, Any], *, timeout: timedelta | None) -> tuple[Any, str]:
        """Ask an operator elsewhere; return its answer, and what went wrong (empty if nothing did)."""
        subject = f"operators.{payload['operator']}.request.{payload['capability']}"
        body = envelope.dumps({"run_id": run.id, "operator_id": run.operator_id, "payload": payload["payload"]})
        told = _stamped(run, "request", random_text(16))
        seconds = timeout.total_seconds() if timeout else ANSWER_PATIENCE
        try:
            self.open()
            request = self.bus.request(subject, body, timeout=seconds, headers=told)
            message = loop.run(request, timeout=seconds + PATIENCE)
            if message.error:
                return None, str(message.error)
            return envelope.loads(message.data), ""
        except (BusError, TimeoutError, envelope.Malformed) as error:
            return None, f"{payload['capability']} of {payload['operator']} was not answered: {error}"

    async def _connect(self) -> None:
        if not self.bus.connected:
            await self.bus.connect()
        try:
            await self.bus.subscribe("operators.*.events.>", self._hear)
        except BusError as error:
            # A bus of somebody's own may only send.
            logger.warning("Events of others are not heard: %s", error)

    async def _hear(self, message: Message) -> None:
        if message.headers.get(ORIGIN) == self._origin:
            return
        _, operator, _, kind = message.subject.split(".", 3)
        try:
            body = envelope.loads(message.data)
            envelope.check(body)
        except envelope.Malformed as error:
            logger.warning("An event on %s is not read: %s", message.subject, error)
            return
        payload = body.get("payload", body)
        name = f"{operator}.{kind.replace('.', '_')}"
        await asyncio.to_thread(self._heard, name, payload, Origin.of(message.headers))

    async def _answer(self, operator: str, capability: str, message: Message) -> bytes:
        try:
            body = envelope.loads(message.data)
            envelope.check(body)
        except envelope.Malformed as error:
            raise ServiceError("400", str(error)) from error
        payload = body.get("payload", body)
        origin = Origin.of(message.headers)
        return envelope.dumps(await asyncio.to_thread(self._served, operator, capability, payload, origin))

    def _publish(self, subject: str, data: bytes, told: Mapping[str, str]) -> None:
        try:
            self.open()
            loop.run(self.bus.publish(subject, data, headers=told), timeout=PATIENCE)
        except (BusError, TimeoutError):
            logger.exception("The bus did not take an event on %s", subject)


def _stamped(run: Run, kind: str, name: str) -> dict[str, str]:
    return headers.stamped(kind, message_id=name, traceparent=run.trace, depth=run.depth, passed_on=run.passed_on)
