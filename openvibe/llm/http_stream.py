"""HTTP requests whose answers come as they are made, on Python's own client: little more than a socket each.

Hundreds of threads of a worker ask at once, and what a call costs of their one processor is all that they can share.

A reader can be let go from outside, by its line, also while the server is silent: its socket is shut down, and the
connection dropped as any broken one. Each request tells the trace in which it is made.
"""

from __future__ import annotations

import os
import select
import socket
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from openvibe import line, trace
from openvibe.errors import SetupError
from openvibe.llm import wire

#: The longest time that connecting may take, in seconds.
CONNECT = 10.0
#: The most that is read at once, in bytes.
PIECE = 64 * 1024
#: The most that is read of an answer that is none, in bytes.
REFUSAL = 64 * 1024


class Unreachable(Exception):
    """No connection could be made; says why."""


class StreamingClient:
    """Asks one server, from any number of threads; a connection is kept for each of those that asked at once.

    `headers` go with every request; `timeout` is the longest silence in seconds. The way leads over the proxy that the
    environment names, as it does for most programs (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY).

    Raises:
        SetupError: the address, or a proxy's, is none of HTTP; or a header holds what none can.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str], timeout: float) -> None:
        self._server = _parts(url, ("http", "https"))
        self._proxy = _proxy(self._server)
        self._timeout = timeout
        self._headers = _sound(headers)
        self._base = self._server.path.rstrip("/")
        if self._proxy and self._server.scheme == "http":
            # A proxy is told the whole address, and who asks; through a tunnel neither.
            self._base = f"http://{self._server.netloc.rpartition('@')[2]}{self._base}"
            self._headers |= _credentials(self._proxy)
        self._kept: dict[int, list[HTTPConnection]] = {}

    @contextmanager
    def post(self, path: str, body: bytes) -> Iterator[HTTPResponse]:
        """Send JSON and give the answer, whose body may be read inside the block as it comes.

        Raises:
            Unreachable: no connection could be made.
            TimeoutError: the server was silent for too long.
            OSError, HTTPException: the connection broke, or what came over it is no HTTP.
        """
        connection, whole = self._connected(), False
        reached = connection.sock
        try:
            with line.current().held(lambda: wire.shut(reached)):
                headers = {"Content-Type": "application/json", **self._headers, **trace.headers()}
                connection.request("POST", self._base + path, body, headers)
                with connection.getresponse() as response:
                    yield response
                    # Python itself closes a response whose length was told only by another kind of read.
                    whole = response.isclosed() or response.length == 0
        finally:
            # Given back only when nobody can shut it down any more; a server may have asked for its end.
            if whole and connection.sock is not None:
                self._idle.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    @property
    def _idle(self) -> list[HTTPConnection]:
        # A forked process would share its parent's sockets, and both would read each other's answers.
        return self._kept.setdefault(os.getpid(), [])

    def _connected(self) -> HTTPConnection:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not _has_news(connection.sock):
                    return connection
                # Nobody has asked it anything: the server has gone.
                connection.close()
        return self._opened()

    def _opened(self) -> HTTPConnection:
        way = self._proxy or self._server
        host, port = str(way.hostname), way.port or _PORTS[way.scheme]
        if self._server.scheme == "http":
            connection = HTTPConnection(host, port, timeout=CONNECT)
        else:
            connection = HTTPSConnection(host, port, timeout=CONNECT, context=wire.trust())
            if self._proxy:
                to = self._server.port or _PORTS["https"]
                connection.set_tunnel(str(self._server.hostname), to, _credentials(self._proxy))
        try:
            connection.connect()
        except (OSError, HTTPException, UnicodeError) as error:
            # The second is what a proxy says that is none, the third a name that no host can have.
            connection.close()
            raise Unreachable(str(error) or type(error).__name__) from error
        connection.sock.settimeout(self._timeout)
        return connection


def lines(response: HTTPResponse) -> Iterator[bytes]:
    """Yield a body's lines without their ends, to its last byte: a connection can be used again only after that.

    On bytes, because text has more line ends than the formats of streams have, and a model may well write one of them.
    """
    rest = b""
    while piece := response.read1(PIECE):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    if rest:
        yield rest


_PORTS = {"http": 80, "https": 443}


def _parts(url: str, schemes: tuple[str, ...]) -> SplitResult:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise SetupError(f"{url!r} is no address that begins with {' or '.join(f'{name}://' for name in schemes)}")
    return parts


def _sound(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        # Refused here, because whoever writes it into a request repeats it in the error, and it may be a key.
        if not (value.isascii() and value.isprintable()):
            raise SetupError(f"The value for the header {name} has line ends or characters that are not ASCII")
    return dict(headers)


def _proxy(server: SplitResult) -> SplitResult | None:
    known = getproxies()
    url = known.get(server.scheme) or known.get("all")
    if not url or proxy_bypass(server.netloc.rpartition("@")[2]):
        return None
    return _parts(url if "://" in url else f"http://{url}", ("http",))


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _has_news(reached: socket.socket) -> bool:
    poll = select.poll()
    poll.register(reached, select.POLLIN)
    return bool(poll.poll(0))
