"""Hands a message of ours to the bus, to be kept by its stream."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from django.conf import settings

from openvibe.errors import BusError
from openvibe.protocol import envelope, headers, requests, tenancy
from operators.link import link
from operators.models import Run

logger = logging.getLogger(__name__)

#: How long the bus may take to keep a message, in seconds.
PATIENCE = 5.0


def of_run(
    run: Run | None,
    subject: str,
    body: Mapping[str, Any],
    type: str,
    *,
    more: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Store a message in the trace and the depth of its run, if it has one; False if the bus did not take it.

    What concerns a run goes out on its project's own subject.
    """
    if run is None:
        return store(subject, body, type, traceparent="", depth=0, more=more)
    subject = tenancy.outward(run.project_id, subject)
    return store(subject, body, type, traceparent=run.traceparent, depth=run.depth, passed_on=run.passed_on, more=more)


def store(
    subject: str,
    body: Mapping[str, Any],
    type: str,
    *,
    traceparent: str,
    depth: int,
    passed_on: Mapping[str, str] = MappingProxyType({}),
    more: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Store a message under its id; False if the bus did not take it. `more` are headers beside the usual ones."""
    name = envelope.message_id(subject, body["id"])
    stamps = headers.stamped(type, message_id=name, traceparent=traceparent, depth=depth, passed_on=passed_on)
    stamps |= {requests.SERVER: settings.OPENVIBE.server, **more}
    try:
        link.submit(link.store(subject, envelope.dumps(body), stamps)).result(PATIENCE)
    except (BusError, TimeoutError) as error:
        logger.info("%s is not on the bus yet: %s", subject, error)
        return False
    return True
