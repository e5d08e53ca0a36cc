"""Durable readers of agents that live in accounts of their own, and what of OpenVibe's account these may use.

A reader that is pushed to may have the server deliver anywhere in the account of its stream. So agents make none there:
they ask OpenVibe (`GATE`), in the very words in which clients ask JetStream, and get readers that are pulled. What a
stream holds, each of its readers may read. So each project has streams of its own, which hold what its agents may read.
Everything else about a reader passes straight to the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from openvibe.protocol import keys, tenancy
from openvibe.protocol.streams import STREAMS, Source, Stream
from openvibe.protocol.subjects import VERSION, token

#: How agents name JetStream: as the domain of their client's JetStream context.
DOMAIN = "openvibe"
API = f"$JS.{DOMAIN}.API"
SERVERS = "$JS.API"
#: What OpenVibe's answers to agents that make readers begin with: `readers.<project>.…`.
GATE = "readers"
REGISTRY = "registry"
#: How many readers a stream of a project has at most, and for how long one is kept that nobody uses.
MOST = 100
KEPT = timedelta(days=7)

#: What agents may say of a reader; it is read as JetStream reads it.
CHOICES = frozenset({
    "ack_policy", "ack_wait", "backoff", "deliver_policy", "description", "filter_subject", "filter_subjects",
    "headers_only", "max_ack_pending", "max_batch", "max_bytes", "max_deliver", "max_expires", "max_waiting",
    "metadata", "opt_start_seq", "opt_start_time", "replay_policy",
})  # fmt: skip
#: What says that a reader is to be pushed to.
PUSHED = ("deliver_subject", "deliver_group", "flow_control", "idle_heartbeat")
#: JetStream's codes for a request that makes no sense, and for a stream that there is not.
INVALID, NO_STREAM, AWAY = 10003, 10059, 10008


@dataclass(frozen=True)
class Passage:
    """A subject of OpenVibe's account that agents may use, and what they call it.

    One request gets one answer, or `many`.
    """

    subject: str
    name: str
    many: bool = False


class Refused(Exception):
    """A reader that cannot be made so."""

    def __init__(self, code: int, error: int, description: str) -> None:
        super().__init__(code, error, description)
        self.code, self.error, self.description = code, error, description


def streams(project: str, *, replicas: int = 1) -> tuple[Stream, ...]:
    """Return the streams that hold what a project's agents may read: their sessions' work and gates, and commands."""
    told = {
        "sessions": [f"sessions.*.{kind}{role}" for kind in ("work", "approvals") for role in ("", ".*")],
        f"cg_cmd_{VERSION}": [f"cg.{VERSION}.{token(project)}.*.cmd.{component}.>" for component in ("agent", "tool")],
    }
    return tuple(
        Stream(
            f"{origin.name}-{token(project)}",
            (),
            origin.max_age,
            replicas=replicas,
            sources=tuple(Source(origin.name, tenancy.outward(project, pattern)) for pattern in told[origin.name]),
            max_consumers=MOST,
        )
        for origin in STREAMS
        if origin.name in told
    )


def buckets(project: str) -> tuple[str, ...]:
    """Return the buckets that a project's agents write."""
    return tuple(tenancy.context(project, name) for name in keys.BUCKETS)


def registry(project: str) -> str:
    """Return the bucket that tells a project's agents what servers offer."""
    return tenancy.bucket(project, REGISTRY)


def followed(project: str) -> tuple[str, ...]:
    """Return the subjects on which a project's agents hear what is put into its buckets."""
    return tuple(f"$KV.{bucket}.>" for bucket in (*buckets(project), registry(project)))


def passages(project: str) -> tuple[Passage, ...]:
    """Return what a project's agents may use: their readers, and their buckets."""
    return (
        *reading(project, *(stream.name for stream in STREAMS)),
        *(passage for bucket in buckets(project) for passage in _writing(bucket)),
        *(
            Passage(f"{SERVERS}.{act}.KV_{bucket}", f"{API}.{act}.KV_{bucket}")
            for bucket in (*buckets(project), registry(project))
            for act in ("STREAM.INFO", "STREAM.MSG.GET")
        ),
    )


def reading(project: str, *origins: str) -> tuple[Passage, ...]:
    """Return what reads durably what a project's own streams hold of these ones."""
    gate = f"{GATE}.{token(project)}"
    names = [stream.name for stream in streams(project) if stream.sources[0].stream in origins]
    return (
        Passage(f"{gate}.names", f"{API}.STREAM.NAMES"),
        *(passage for name in names for passage in _reading(gate, name)),
    )


def _reading(gate: str, stream: str) -> Iterator[Passage]:
    yield Passage(f"{gate}.create.{stream}.*", f"{API}.CONSUMER.CREATE.{stream}.*")
    yield Passage(f"{gate}.create.{stream}.*.>", f"{API}.CONSUMER.CREATE.{stream}.*.>")
    yield Passage(f"{gate}.durable.{stream}.*", f"{API}.CONSUMER.DURABLE.CREATE.{stream}.*")
    yield Passage(f"{SERVERS}.STREAM.INFO.{stream}", f"{API}.STREAM.INFO.{stream}")
    yield Passage(f"{SERVERS}.CONSUMER.INFO.{stream}.*", f"{API}.CONSUMER.INFO.{stream}.*")
    yield Passage(f"{SERVERS}.CONSUMER.MSG.NEXT.{stream}.*", f"{API}.CONSUMER.MSG.NEXT.{stream}.*", many=True)
    yield Passage(f"$JS.ACK.{stream}.>", f"$JS.ACK.{stream}.>")


def _writing(bucket: str) -> Iterator[Passage]:
    yield Passage(f"$KV.{bucket}.>", f"$KV.{bucket}.>")
    # As clients spell it that name a domain.
    yield Passage(f"$KV.{bucket}.>", f"{API}.$KV.{bucket}.>")


def checked(request: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """Return the configuration of the reader that somebody asks for, with what nobody may say left out.

    Raises:
        Refused: it is to be pushed to, or is no configuration.
    """
    config = request.get("config")
    if not isinstance(config, Mapping):
        raise Refused(400, INVALID, "config: an object is needed")
    if pushed := [field for field in PUSHED if config.get(field)]:
        raise Refused(403, INVALID, f"{pushed[0]}: readers of agents are pulled, and delivered to nobody")
    if config.get("durable_name") not in (None, "", name):
        raise Refused(400, INVALID, f"durable_name: {config['durable_name']!r} is not {name!r}, as the subject says")
    chosen = {field: value for field, value in config.items() if field in CHOICES}
    longest = int(KEPT.total_seconds() * 1e9)
    asked = config.get("inactive_threshold")
    idle = min(asked, longest) if isinstance(asked, int) and asked > 0 else longest
    named = {"durable_name": name} if config.get("durable_name") else {}
    return {**chosen, **named, "name": name, "inactive_threshold": idle}


def names(known: Sequence[str]) -> dict[str, Any]:
    """Return JetStream's answer to the question which streams there are."""
    return {"type": _type("stream_names"), "total": len(known), "offset": 0, "limit": 1024, "streams": list(known)}


def refusal(error: Refused) -> dict[str, Any]:
    """Return JetStream's answer to a reader that is not made."""
    told = {"code": error.code, "err_code": error.error, "description": error.description}
    return {"type": _type("consumer_create"), "error": told}


def _type(act: str) -> str:
    return f"io.nats.jetstream.api.v1.{act}_response"
