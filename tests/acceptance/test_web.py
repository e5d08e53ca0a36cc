"""The same site behind either server: pages, files, REST, event streams, websockets, and an end while all are open."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.acceptance import site as sites
from tests.acceptance.site import Site

GENERAL = "cg.v1.default.public.evt.agent.scout.message"


@pytest.fixture(params=["daphne", "uvicorn"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with sites.running(tmp_path / "home", OPENVIBE_WEB=request.param) as own:
        assert httpx.get(own.url, trust_env=False).headers["server"] == request.param
        yield own


def test_either_server_serves_everything_and_ends_while_all_of_it_is_open(site: Site) -> None:
    cookie = {"Cookie": site.session()}
    page = httpx.get(f"{site.url}/agents/general/", headers=cookie, trust_env=False)
    assert page.status_code == 200
    script = re.search(r'src="(/static/js/[^"]+)"', page.text)
    assert script
    assert httpx.get(site.url + script[1], trust_env=False).headers["content-type"].startswith("text/javascript")
    address = f"ws://127.0.0.1:{site.port}/ws/agents/general/?after=0"
    with connect(address, additional_headers={"Origin": site.url}, proxy=None) as stranger:
        with pytest.raises(ConnectionClosed) as closed:
            stranger.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4404
    own = connect(address, additional_headers={**cookie, "Origin": site.url}, proxy=None)
    stream = httpx.Client(headers={"Authorization": f"Bearer {site.token}"}, trust_env=False, timeout=30)
    with own as page, stream, stream.stream("GET", f"{site.url}/v1/events/stream") as news:
        lines = news.iter_lines()
        assert next(lines) == "retry: 1000"
        site.post(GENERAL, b'{"id": "m1", "content": "hello from outside"}')
        assert next(line for line in lines if line.startswith("data: ") and "hello from outside" in line)
        while "hello from outside" not in page.recv(30):
            pass
        assert site.stop() == 0


def test_a_reader_that_stands_still_holds_nobody_up_and_the_others_miss_nothing(site: Site) -> None:
    cookie = {"Cookie": site.session(), "Origin": site.url}
    address = f"ws://127.0.0.1:{site.port}/ws/agents/general/?after=0"
    with contextlib.closing(_still(site, cookie["Cookie"])):
        with connect(address, additional_headers=cookie, proxy=None, max_size=None) as page:
            while 'data-state="live"' not in page.recv(30):
                pass
            # More than the buffers of a connection that nobody reads, and than daphne sends in one frame.
            padding = b"x" * 20_000
            said = b'{"id": "m%d", "content": "mark-%d- %s"}'
            site.post(GENERAL, *[said % (number, number, padding) for number in range(300)])
            seen: list[int] = []
            while len(seen) < 300:
                seen += [int(number) for number in re.findall(r"mark-(\d+)-", str(page.recv(60)))]
        # The newest stands first, so that a frame of several begins with its last.
        assert sorted(seen) == list(range(300))


def _still(site: Site, cookie: str) -> socket.socket:
    """Open a websocket as a browser does, and read no more than that it is open."""
    still = socket.socket()
    still.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    still.settimeout(30)
    still.connect(("127.0.0.1", site.port))
    lines = [
        "GET /ws/agents/general/?after=0 HTTP/1.1",
        f"Host: 127.0.0.1:{site.port}",
        f"Origin: {site.url}",
        f"Cookie: {cookie}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    still.sendall("\r\n".join([*lines, "", ""]).encode())
    assert b" 101 " in still.recv(64)
    return still
