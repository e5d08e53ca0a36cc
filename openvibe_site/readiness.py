"""Asks the web process whether everything lives: `/readyz` knows about database, NATS, workers and bridge."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Sequence

from openvibe_site import ports

# No proxy from the environment may stand between the supervisor and its own child.
#: What to look at when a part of `/readyz` is not ready.
REMEDIES = {
    "database": "the database does not answer (is DATABASE_URL right?)",
    "worker": "no worker lives (is CELERY_BROKER_URL right? see worker-1.log)",
    "bridge": "the bridge does not live (see bridge.log)",
    "bus": "no process reaches the bus (is NATS_URL right or, with OPENVIBE_BUS=redis, REDIS_URL?)",
}

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def complaint(port: int, *, allowed_hosts: Sequence[str], timeout: float = 2.0) -> str:
    """Empty when everything is ready, else what `/readyz` or the connection says."""
    url = f"http://{ports.LOOPBACK}:{port}/readyz"
    request = urllib.request.Request(url, headers={"Host": _host(allowed_hosts), "Accept": "application/json"})
    try:
        with DIRECT.open(request, timeout=timeout):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return _told(error.code, error.read(2000))
    except (OSError, http.client.HTTPException) as error:
        return f"the web process does not answer yet ({getattr(error, 'reason', error)})"


def _told(code: int, body: bytes) -> str:
    """The parts that are not ready, each with the place to look; the bare answer if it is none of `/readyz`."""
    try:
        parts = json.loads(body)["parts"]
    except (ValueError, KeyError, TypeError):
        return f"{code} {body.decode(errors='replace').strip()}"
    return "; ".join(REMEDIES.get(name, f"{name} is {state}") for name, state in parts.items() if state != "ok")


def _host(allowed_hosts: Sequence[str]) -> str:
    """A name that Django lets in, whatever the allowed hosts are."""
    if ports.LOOPBACK in allowed_hosts or "*" in allowed_hosts:
        return ports.LOOPBACK
    return allowed_hosts[0].lstrip(".")
