"""Requests whose answers come as they are made: over TLS and proxies, on connections that serve while they live."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from openvibe.errors import SetupError
from openvibe.llm import http_stream, wire
from openvibe.llm.http_stream import StreamingClient, Unreachable
from tests.acceptance.site import until
from tests.threads import serving

HOST = "127.0.0.1"


class Server(ThreadingHTTPServer):
    """Answers every request with `b"one\\ntwo"`; keeps what it was asked."""

    daemon_threads = True

    def __init__(self, *, closes: bool = False, tls: ssl.SSLContext | None = None) -> None:
        super().__init__((HOST, 0), Handler)
        self.closes, self.asked, self.connections, self.gone = closes, [], 0, 0
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    asked: list[tuple[str, dict[str, str], bytes]]

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.gone += 1

    @property
    def address(self) -> str:
        return f"{HOST}:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}, body))
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"one\ntwo")
        # Without a word about it, as servers do that are restarted or find a connection idle.
        self.close_connection = self.server.closes

    def do_CONNECT(self) -> None:
        """Be a proxy's tunnel."""
        self.server.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}, b""))
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as far:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pass_on, args=(far, self.connection))
            back.start()
            _pass_on(self.connection, far)
            back.join()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


@pytest.fixture
def proxy() -> Iterator[Server]:
    with serving(Server()) as proxy:
        yield proxy


@pytest.fixture
def secure(monkeypatch, tmp_path) -> Iterator[Server]:
    """A server whose certificate this process trusts, as its environment says."""
    tls = _certified(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    wire.trust.cache_clear()
    with serving(Server(tls=tls)) as server:
        yield server
    wire.trust.cache_clear()


def _certified(folder: Path) -> ssl.SSLContext:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))])
    made = made.add_extension(names, critical=True).add_extension(x509.BasicConstraints(True, None), critical=True)
    certificate = made.sign(key, hashes.SHA256())
    (folder / "server.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "server.pem", folder / "key.pem")
    return tls


@pytest.fixture
def client() -> Iterator[Callable[[str], StreamingClient]]:
    made: list[StreamingClient] = []

    def make(url: str) -> StreamingClient:
        made.append(StreamingClient(url, headers={"Authorization": "Bearer sk-test"}, timeout=10))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ask(client: StreamingClient) -> list[bytes]:
    with client.post("/chat", b"{}") as response:
        assert response.status == 200
        return list(http_stream.lines(response))


def test_an_answer_comes_in_lines_the_last_of_which_need_not_end(server, client):
    assert ask(client(f"http://{server.address}/v1/")) == [b"one", b"two"]
    [(path, headers, body)] = server.asked
    assert (path, headers["authorization"], headers["content-type"], body) == (
        "/v1/chat",
        "Bearer sk-test",
        "application/json",
        b"{}",
    )


def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used_again(client):
    with serving(Server(closes=True)) as server:
        made = client(f"http://{server.address}")
        for number in (1, 2, 3):
            assert ask(made) == [b"one", b"two"]
            until(lambda number=number: server.gone == number, "the server has closed the connection")
        assert server.connections == 3


def test_an_answer_that_was_not_read_to_its_end_ends_its_connection(server, client):
    made = client(f"http://{server.address}")
    with made.post("/chat", b"{}") as response:
        assert response.read1(3) == b"one"
    ask(made)
    assert server.connections == 2


def test_a_forked_process_does_not_use_its_parents_connections(monkeypatch, server, client):
    made = client(f"http://{server.address}")
    ask(made)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        ask(made)
        made.close()
    ask(made)
    assert server.connections == 2


def test_a_server_is_asked_over_tls_if_the_environment_trusts_it(monkeypatch, secure, client):
    assert ask(client(f"https://{secure.address}")) == [b"one", b"two"]
    monkeypatch.delenv("SSL_CERT_FILE")
    wire.trust.cache_clear()
    with pytest.raises(Unreachable, match="certificate verify failed"):
        ask(client(f"https://{secure.address}"))


def test_a_proxy_leads_through_a_tunnel_and_sees_no_key(monkeypatch, secure, proxy, client):
    monkeypatch.setenv("HTTPS_PROXY", f"http://ann:p%40ss@{proxy.address}")
    made = client(f"https://{secure.address}/v1")
    assert [ask(made) for _ in range(2)] == [[b"one", b"two"]] * 2
    [(path, headers, _)] = proxy.asked
    assert (path, headers["proxy-authorization"]) == (secure.address, "Basic YW5uOnBAc3M=")
    assert "authorization" not in headers
    assert [asked[0] for asked in secure.asked] == ["/v1/chat"] * 2
    assert "proxy-authorization" not in secure.asked[0][1]
    made.close()


def test_a_proxy_is_told_the_whole_address_of_a_plain_server(monkeypatch, server, proxy, client):
    monkeypatch.setenv("HTTP_PROXY", f"ann:secret@{proxy.address}")
    ask(client(f"http://{server.address}/v1"))
    [(path, headers, _)] = proxy.asked
    assert (path, server.asked) == (f"http://{server.address}/v1/chat", [])
    assert headers["proxy-authorization"] == "Basic YW5uOnNlY3JldA=="
    assert headers["host"] == server.address


def test_who_needs_no_proxy_is_asked_directly(monkeypatch, server, proxy, client):
    monkeypatch.setenv("ALL_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv("NO_PROXY", HOST)
    ask(client(f"http://{server.address}"))
    assert (len(server.asked), proxy.asked) == (1, [])


@pytest.mark.parametrize(
    "url", ["localhost:8080/v1", "ftp://example.com", "https://", "", "http://[::1", "http://h:99999", "http://h:x"]
)
def test_an_address_that_is_none_of_http_is_refused_at_once(url, client):
    with pytest.raises(SetupError, match="is no address that begins with http:// or https://"):
        client(url)


def test_a_name_that_no_host_can_have_is_out_of_reach(client):
    with pytest.raises(Unreachable, match="idna"):
        ask(client(f"http://{'ü' * 64}.example"))


def test_a_proxy_that_is_none_is_out_of_reach_and_leaves_no_connection(monkeypatch, client):
    with socket.create_server((HOST, 0)) as listening, ThreadPoolExecutor(1) as thread:

        def babble() -> bytes:
            met, _ = listening.accept()
            with met:
                met.settimeout(10)
                met.recv(65536)
                met.sendall(b"220 mail.example ESMTP\r\n")
                return met.recv(1)

        heard = thread.submit(babble)
        monkeypatch.setenv("HTTPS_PROXY", f"http://{HOST}:{listening.getsockname()[1]}")
        with pytest.raises(Unreachable):
            ask(client("https://example.com"))
        assert heard.result(30) == b""


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-sécret"])
def test_a_key_that_cannot_be_sent_is_refused_at_once_and_not_repeated(key):
    with pytest.raises(SetupError, match="header Authorization has line ends") as caught:
        StreamingClient("https://example.com", headers={"Authorization": f"Bearer {key}"}, timeout=10)
    assert "cret" not in str(caught.value)


def test_a_proxy_of_another_kind_is_refused_at_once(monkeypatch, client):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(SetupError, match=r"'socks5://127\.0\.0\.1:1080' is no address that begins with http:"):
        client("https://example.com")
