"""The JetStream streams of the house and their durable readers, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from openvibe.protocol import actions, tenancy
from openvibe.protocol.commands import PATTERNS as COMMANDS
from openvibe.protocol.internal import PATTERN as INTERNAL
from openvibe.protocol.requests import ANSWERS
from openvibe.protocol.subjects import VERSION
from openvibe.protocol.workflow import PREFIX

GIB = 1024**3
#: One durable per system; its replicas share it.
DURABLE = "openvibe-bridge"
#: What a server is called that nobody has named and that serves all its operators.
DEFAULT_SERVER = "openvibe"
#: The stream of external workflow runtimes.
AGENTS = "agent-comms"


@dataclass(frozen=True)
class Source:
    """What a stream takes over from another one: what that keeps on subjects like this."""

    stream: str
    pattern: str


@dataclass(frozen=True)
class Stream:
    """A stream: what it keeps, for how long, and at most how many bytes (-1: no bound of its own).

    `deployed_bytes` is the bound where a cluster's disks are meant for it. `replicas` is the number of copies that a
    cluster keeps, `max_consumers` the number of readers that it may have (-1: any).
    """

    name: str
    subjects: tuple[str, ...]
    max_age: timedelta
    max_bytes: int = -1
    storage: Literal["file", "memory"] = "file"
    retention: Literal["limits", "interest", "workqueue"] = "limits"
    deployed_bytes: int = -1
    replicas: int = 1
    sources: tuple[Source, ...] = ()
    max_consumers: int = -1


@dataclass(frozen=True)
class Consumer:
    """A durable reader: pulled, each message acknowledged, from the stream's beginning when it is new.

    The server hands a message out without end (`max_deliver` -1): the reader counts itself, because a message that the
    server drops would be nowhere.
    """

    stream: str
    durable: str
    patterns: tuple[str, ...]
    ack_wait: timedelta = timedelta(seconds=30)
    max_deliver: int = -1
    max_ack_pending: int = 1000


@dataclass(frozen=True)
class Bucket:
    """A bucket of NATS KV: so many revisions of each key, so many copies in a cluster."""

    name: str
    history: int
    replicas: int = 1

    @property
    def stream(self) -> str:
        """The stream in which NATS keeps it."""
        return f"KV_{self.name}"


def streams(prefixes: Sequence[str] = (PREFIX,), *, replicas: int = 1) -> tuple[Stream, ...]:
    """Return the streams where the dialect `workflow` goes by these prefixes."""
    day = timedelta(hours=24)
    found = (
        Stream(f"cg_cmd_{VERSION}", (f"cg.{VERSION}.*.*.cmd.>",), day),
        Stream(f"cg_evt_{VERSION}", (f"cg.{VERSION}.*.*.evt.>",), 7 * day),
        Stream("operators", tenancy.everybodys("operators.*.events.>"), 7 * day),
        Stream(AGENTS, _everything(prefixes), 7 * day, deployed_bytes=10 * GIB),
        Stream("sessions", tenancy.everybodys("sessions.>"), 7 * day),
    )
    return tuple(replace(row, replicas=replicas) for row in found)


def consumers(prefixes: Sequence[str] = (PREFIX,)) -> tuple[Consumer, ...]:
    """Return the durable readers of the bridge."""
    kinds = ("results", "approvals", "events")
    # Our own announcements (`evt.sys`) are not read.
    spoken = tuple(f"cg.{VERSION}.*.*.evt.{component}.*.>" for component in ("agent", "user", "tool"))
    told = tuple(f"sessions.*.{kind}{role}" for kind in kinds for role in ("", ".*"))
    return (
        Consumer(f"cg_cmd_{VERSION}", DURABLE, (ANSWERS, *COMMANDS, INTERNAL, actions.PATTERN)),
        Consumer(f"cg_evt_{VERSION}", DURABLE, spoken),
        Consumer("operators", DURABLE, tenancy.everybodys("operators.*.events.>")),
        Consumer(AGENTS, DURABLE, _everything(prefixes)),
        Consumer("sessions", DURABLE, tenancy.everybodys(*told)),
    )


def durable(consumer: Consumer, server: str) -> str:
    """Return the durable's name for one server: each reads everything, and its replicas share it."""
    return consumer.durable if server == DEFAULT_SERVER else f"{consumer.durable}-{server}"


def _everything(prefixes: Sequence[str]) -> tuple[str, ...]:
    return tenancy.everybodys(*(f"{prefix}.>" for prefix in prefixes))


STREAMS = streams()
CONSUMERS = consumers()
