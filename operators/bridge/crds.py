"""The table of streams and durable readers as Kubernetes resources of NACK, NATS's controller."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import yaml

from openvibe.protocol.streams import STREAMS, Consumer, Stream

API = "jetstream.nats.io/v1beta2"
#: Copies of each stream in a cluster, where nobody has set more than one.
REPLICAS = 3
HEADER = "# Made by `manage.py bus yaml` from openvibe/protocol/streams.py; a change belongs there.\n"


def stream(row: Stream) -> dict[str, Any]:
    """Return a stream's resource."""
    bound = row.deployed_bytes if row.max_bytes == -1 else row.max_bytes
    taken = [{"name": source.stream, "filterSubject": source.pattern} for source in row.sources]
    spec = {
        "name": row.name,
        **({"subjects": list(row.subjects)} if row.subjects else {}),
        **({"sources": taken} if taken else {}),
        "retention": row.retention,
        "storage": row.storage,
        "maxAge": _duration(row.max_age),
        "maxBytes": bound,
        **({"maxConsumers": row.max_consumers} if row.max_consumers != -1 else {}),
        "replicas": row.replicas if row.replicas > 1 else REPLICAS,
        "discard": "old",
        "duplicateWindow": "2m",
        # The resource may go; what agents said stays.
        "preventDelete": True,
    }
    return {"apiVersion": API, "kind": "Stream", "metadata": {"name": _name(row.name)}, "spec": spec}


def consumer(row: Consumer) -> dict[str, Any]:
    """Return a durable reader's resource."""
    spec = {
        "streamName": row.stream,
        "durableName": row.durable,
        "deliverPolicy": "all",
        "ackPolicy": "explicit",
        "ackWait": _duration(row.ack_wait),
        "maxDeliver": row.max_deliver,
        "maxAckPending": row.max_ack_pending,
        "replayPolicy": "instant",
        "filterSubjects": list(row.patterns),
        "preventDelete": True,
    }
    name = f"{_name(row.stream)}-{_name(row.durable)}"
    return {"apiVersion": API, "kind": "Consumer", "metadata": {"name": name}, "spec": spec}


def text(resources: list[dict[str, Any]]) -> str:
    """Return resources as one YAML file."""
    return HEADER + str(yaml.safe_dump_all(resources, sort_keys=False, explicit_start=True))


def _name(text: str) -> str:
    """Name a resource as Kubernetes takes it, in small letters, digits and hyphens; what it cannot say a hash tells."""
    plain, own = _plain(text), text
    for origin in STREAMS:
        own = own.removeprefix(origin.name)
    if own == _plain(own) and not own.endswith("-"):
        return plain
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _plain(text: str) -> str:
    return text.lower().replace("_", "-")


def _duration(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds}s"
