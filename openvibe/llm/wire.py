"""HTTP connections whose reader can be let go from outside, by its line, also while the server is silent.

Each request tells the trace in which it is made.

Clients time out and close what they have opened, but only on their own thread; the reader hangs in the socket
meanwhile. A socket that is shut down lets it go at once, and the client drops that connection as any broken one.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import httpx

from openvibe import line, trace

C = TypeVar("C")

#: As many connections as threads may ever ask at once, all of them kept.
CONNECTIONS = {"max_connections": 1_000, "max_keepalive_connections": 1_000}


def listening(client: C) -> C:
    """Let the connections of an httpx client hear when their reader's line is hung up, and tell its trace; return it.

    Neither httpx nor the vendors' packages hand a network backend through to the pool, though the pool takes one.
    """
    made: Any = client
    for transport in (made._transport, *filter(None, made._mounts.values())):
        transport._pool._network_backend = _Backend(transport._pool._network_backend)
    made.event_hooks["request"].append(_tell_trace)
    return client


@cache
def trust() -> ssl.SSLContext:
    """Return whom this process trusts, as its environment says; read once, because that takes longer than a call."""
    return httpx.create_ssl_context()


def shut(wire: socket.socket) -> None:
    """Let go whoever reads from a socket, or writes to it."""
    # The socket's own way: that of TLS would touch what its reader uses at this moment.
    with suppress(OSError):
        socket.socket.shutdown(wire, socket.SHUT_RDWR)


def _tell_trace(request: Any) -> None:
    # Whatever instruments the client itself knows better.
    if "traceparent" not in request.headers:
        request.headers.update(trace.headers())


class _Backend:
    """A network backend (see httpcore's `NetworkBackend`) around another one."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(self, *address: Any, **options: Any) -> _Stream:
        return _Stream(self._backend.connect_tcp(*address, **options))

    def connect_unix_socket(self, *address: Any, **options: Any) -> _Stream:
        return _Stream(self._backend.connect_unix_socket(*address, **options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream:
    """A connection whose reads and writes end when the line of whoever reads is hung up."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with line.current().held(self._shut):
            data: bytes = self._stream.read(max_bytes, timeout)
            return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with line.current().held(self._shut):
            self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *options: Any, **more: Any) -> _Stream:
        return _Stream(self._stream.start_tls(*options, **more))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _shut(self) -> None:
        shut(self._stream.get_extra_info("socket"))
