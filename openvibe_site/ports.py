"""Whether a port of this machine is free, and whether somebody answers there."""

from __future__ import annotations

import random
import socket

from openvibe_site.errors import CannotStart

LOOPBACK = "127.0.0.1"
#: Below the ports of outgoing connections, one of which could take a free port before its server does.
CHOICE = range(15_000, 32_000)

_handed_out: set[int] = set()


def require_free(port: int) -> None:
    try:
        _bound(port)
    except PermissionError:
        raise CannotStart(
            f"Port {port} is reserved for the system administrator. Set OPENVIBE_PORT to one above 1023."
        ) from None
    except OSError:
        raise CannotStart(
            f"Port {port} is used by another program. Stop it, or set OPENVIBE_PORT to a free one."
        ) from None


def free(*, preferred: int = 0) -> int:
    """The preferred port if nobody uses it, else another free one, never the same twice in one process."""
    for port in (*([preferred] if preferred else []), *random.sample(CHOICE, len(CHOICE))):
        if port != preferred and port in _handed_out:
            continue
        try:
            _handed_out.add(_bound(port))
        except (OSError, OverflowError):
            continue
        return port
    raise CannotStart(f"No port of {LOOPBACK} between {CHOICE[0]} and {CHOICE[-1]} is free.")


def answers(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def _bound(port: int) -> int:
    with socket.socket() as probe:
        # As servers do: connections of an earlier instance that still linger do not count as use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
        bound: int = probe.getsockname()[1]
        return bound
