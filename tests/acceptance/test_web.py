"""The same site behind either server: pages, files, REST, event streams, websockets, and an end while all are open."""

from __future__ import annotations

import re
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
        assert "hello from outside" in next(line for line in lines if line.startswith("data: "))
        while "hello from outside" not in page.recv(30):
            pass
        assert site.stop() == 0
