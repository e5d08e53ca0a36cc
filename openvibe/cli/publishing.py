"""`openvibe publish`: an agent of any runtime tells what it does."""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from openvibe.bus.nats import NatsBus
from openvibe.cli import lines
from openvibe.cli.arguments import Commands, command
from openvibe.errors import BusError, OpenVibeError, SetupError
from openvibe.protocol import envelope, headers, subjects, workflow
from openvibe.protocol.workflow import Identity

#: Who speaks, and how, where nobody says so.
AGENT, KIND = "agent", "message"
#: Lines that are kept while NATS is away; whoever writes more of them has to wait.
MOST_WAITING = 100_000
#: The longest text of one message, in characters; NATS takes 1 MiB, and JSON writes some in six bytes. A longer line
#: becomes several messages.
LONGEST = 150_000
RETRY_SECONDS = 0.5

#: Lines on their way, and what ends them: nothing more, or a source that cannot be read.
Lines = asyncio.Queue[str | OSError | None]


class NotStored(OpenVibeError):
    """NATS did not come back in time."""


def add(commands: Commands) -> None:
    """Add the command."""
    publish = command(commands, "publish", _publish, help="Tell what an agent does, one message a line")
    publish.add_argument("--run-uid", default=_env("WORKFLOW_UID"), help="the run's uid (else $WORKFLOW_UID)")
    publish.add_argument("--workflow-name", default=_env("WORKFLOW_NAME"), help="else $WORKFLOW_NAME")
    publish.add_argument("--namespace", default=_env("WORKFLOW_NAMESPACE"), help="else $WORKFLOW_NAMESPACE")
    publish.add_argument("--agent", default=_env("AGENT_ID") or AGENT, help="who speaks (else $AGENT_ID)")
    publish.add_argument("--general", action="store_true", help="tell everybody, too")
    publish.add_argument("--kind", default=KIND, help="message, tool_call, status, error, log, run-complete …")
    publish.add_argument("--role", default=_env("AGENT_ROLE"), help="system, user, assistant or tool")
    publish.add_argument("--attr", dest="attrs", action="append", default=[], metavar="k=v", help="an attribute")
    publish.add_argument("--log-file", type=Path, help="follow this file, as tail -F, instead of reading stdin")
    publish.add_argument("--nats", default="", help="address (else $NATS_URL, else that in $OPENVIBE_HOME)")
    publish.add_argument("--prefix", default=workflow.PREFIX, help="how the subjects begin (workflow)")
    publish.add_argument("--patience", type=float, default=None, help="seconds to wait for NATS (without end)")


def _publish(options: argparse.Namespace) -> int:
    if not options.run_uid and not options.general:
        raise SetupError("Whose messages are these? Name the run with --run-uid, or tell everybody with --general.")
    if any(subjects.token(part) != part for part in options.prefix.split(".")):
        raise SetupError(f"--prefix is {options.prefix!r}; a subject begins with words like 'workflow', joined by dots")
    voice = Voice(
        identity=Identity(options.run_uid, options.workflow_name, options.namespace),
        general=options.general,
        agent=options.agent or AGENT,
        kind=options.kind or KIND,
        role=options.role,
        attrs=_attributes(options.attrs),
        prefix=options.prefix,
    )
    return asyncio.run(_told(voice, Post(_nats_url(options.nats), options.patience, Trace.here()), options.log_file))


@dataclass(frozen=True)
class Voice:
    """Who speaks, of what, and where to."""

    identity: Identity
    general: bool
    agent: str
    kind: str
    role: str
    attrs: Mapping[str, Any]
    prefix: str

    def messages(self, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the subjects and bodies by which a text is told; each copy is a message with an id of its own."""
        told = [self.identity] if self.identity.uid else []
        for target in [*told, Identity()] if self.general else told:
            yield workflow.subject(target, agent=self.agent, kind=self.kind, prefix=self.prefix), self._body(text)

    def _body(self, text: str) -> dict[str, Any]:
        body = {
            "message_id": str(uuid.uuid4()),
            "timestamp": datetime.now(UTC).isoformat(),
            "workflow_uid": self.identity.uid,
            "workflow_name": self.identity.name,
            "workflow_namespace": self.identity.namespace,
            "agent_id": self.agent,
            "kind": self.kind,
            "role": self.role,
            "content": text,
            "attrs": dict(self.attrs),
        }
        return {name: value for name, value in body.items() if value}


@dataclass(frozen=True)
class Trace:
    """The trace that all lines belong to: that of whoever started this program, else one of its own."""

    parent: str
    passed_on: Mapping[str, str]

    @classmethod
    def here(cls) -> Trace:
        """Read the environment, where OpenTelemetry's programs leave it for those that they start."""
        given = {"traceparent": _env("TRACEPARENT"), headers.TRACESTATE: _env("TRACESTATE")}
        return cls(headers.traceparent(given) or headers.new_trace(), headers.passed_on(given))


@dataclass
class Post:
    """Stores messages in their order, each until it is stored; says when NATS is away, and when it is back."""

    url: str
    patience: float | None
    trace: Trace
    waiting: Lines = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    _bus: NatsBus | None = None
    _away_since: float | None = None

    async def store(self, subject: str, body: Mapping[str, Any]) -> None:
        """Return once a stream keeps the message. Raises `NotStored` when patience has come to its end."""
        stamps = headers.stamped(
            str(body["kind"]),
            message_id=envelope.message_id(subject, str(body["message_id"])),
            traceparent=self.trace.parent,
            sender="openvibe-publish",
            passed_on=self.trace.passed_on,
        )
        while True:
            try:
                await (await self._connected()).store(subject, orjson.dumps(body), headers=stamps)
            except BusError as error:
                self._complain(error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
        if self._away_since is not None:
            self._away_since = None
            _say("NATS keeps messages again")

    async def close(self) -> None:
        """Disconnect."""
        if self._bus is not None:
            await self._bus.close()

    async def _connected(self) -> NatsBus:
        if self._bus is None or self._bus.closed:
            bus = NatsBus(
                self.url,
                name="openvibe publish",
                credentials=_env("NATS_CREDENTIALS"),
                certificates=_env("NATS_CERT_DIR"),
            )
            await bus.connect()
            self._bus = bus
        return self._bus

    def _complain(self, error: BusError) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            _say(f"{error}; lines are kept until it does")
        elif self.patience is not None and now - self._away_since > self.patience:
            raise NotStored(f"NATS was away for {self.patience:g} s; the last lines are not stored ({error})")


async def _told(voice: Voice, post: Post, log_file: Path | None) -> int:
    ended = threading.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Whoever ends it wants what was written until then to be stored; asked twice, it ends at once.
        loop.add_signal_handler(number, _end, ended, None if log_file else post.waiting)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # What a tool prints need not be text.
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    source = lines.followed(log_file, ended) if log_file else lines.given(sys.stdin, ended)
    threading.Thread(target=_read, args=(source, post.waiting, loop), name="lines", daemon=True).start()
    try:
        while isinstance(line := await post.waiting.get(), str):
            for start in range(0, len(line), LONGEST):
                for subject, body in voice.messages(line[start : start + LONGEST]):
                    await post.store(subject, body)
    finally:
        await post.close()
    if line is not None:
        raise SetupError(f"{log_file or 'The standard input'} cannot be read: {line.strerror or line}")
    return 0


def _end(ended: threading.Event, waiting: Lines | None) -> None:
    if ended.is_set():
        raise KeyboardInterrupt
    ended.set()
    if waiting is not None and not waiting.full():
        # Whoever reads stdin may be stuck in it.
        waiting.put_nowait(None)


def _read(source: Iterator[str], waiting: Lines, loop: asyncio.AbstractEventLoop) -> None:
    end: OSError | None = None
    try:
        for line in source:
            if line.strip():
                # A log that was cut short while somebody wrote to it begins with NULs, which no database keeps.
                text = line.replace("\0", "\N{REPLACEMENT CHARACTER}")
                asyncio.run_coroutine_threadsafe(waiting.put(text), loop).result()
    except OSError as error:
        end = error
    finally:
        asyncio.run_coroutine_threadsafe(waiting.put(end), loop)


def _attributes(given: list[str]) -> dict[str, str]:
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SetupError(f"{pair!r} is no k=v, such as branch=main")
        found[name] = value
    return found


def _nats_url(given: str) -> str:
    if url := given or _env("NATS_URL"):
        return url
    home = Path(_env("OPENVIBE_HOME") or ".openvibe").expanduser()
    try:
        return (home / "nats.url").read_text("utf-8", errors="replace").strip()
    except OSError as error:
        if _env("OPENVIBE_BUS") not in ("", "nats"):
            raise SetupError(f"OPENVIBE_BUS is {_env('OPENVIBE_BUS')!r}: agents are heard over NATS only.") from error
        raise SetupError(f"Where is NATS? Set --nats or NATS_URL; there is no nats.url in {home.resolve()}.") from error


def _env(name: str) -> str:
    return os.environ.get(name, "").strip()


def _say(text: str) -> None:
    print(f"openvibe: {text}", file=sys.stderr, flush=True)
