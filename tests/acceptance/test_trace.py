"""One trace, from a caller over HTTP through two servers that share a NATS, to all that these ask and tell outside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest

from openvibe.protocol import headers
from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, Site, until
from tests.contracts import vendors
from tests.contracts.vendors import VENDORS, Reply
from tests.threads import serving

pytestmark = pytest.mark.timeout(300)

MODULE = "tests.acceptance.relay"
EVENT = "operators.herald.events.deal_found"
OPENAI = next(vendor for vendor in VENDORS if vendor.name == "openai")


class Outside(ThreadingHTTPServer):
    """A CRM, a chat and somebody who is told of events, at one address; notes the trace of each request by its path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.traces: dict[str, tuple[str, str]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Outside

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        told = (self.headers.get("traceparent", ""), self.headers.get("tracestate", ""))
        self.server.traces[self.path.partition("?")[0]] = told
        body = json.dumps({"ok": True, "channel": "C1", "ts": "1.0", "id": "7", "properties": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def outside() -> Iterator[Outside]:
    with serving(Outside()) as server:
        yield server


def stored(url: str, subject: str) -> dict[str, str]:
    """The headers of the newest message that a stream keeps of a subject."""

    async def read() -> dict[str, str]:
        client = await nats.connect(url)
        try:
            jetstream = client.jetstream()
            found = await jetstream.get_last_msg(await jetstream.find_stream_name_by_subject(subject), subject)
            return found.headers or {}
        finally:
            await client.close()

    return asyncio.run(read())


def ended(site: Site, operator: str) -> dict[str, Any] | None:
    found = site.call("GET", f"/operators/{operator}/runs").json()["results"]
    return next((run for run in found if run["status"] in ENDED), None)


def test_one_trace_goes_from_hop_to_hop_and_out_again(tmp_path: Path) -> None:
    with ExitStack() as stack:
        bus, there = stack.enter_context(servers.nats()), stack.enter_context(outside())
        model = stack.enter_context(vendors.running(Reply(OPENAI.answer("A good deal"))))
        shared = {
            "NATS_URL": bus.url, "OPENVIBE_OPERATORS": MODULE, "OPENVIBE_WEBHOOK_PRIVATE": "1",
            "HUBSPOT_TOKEN": "t", "HUBSPOT_BASE_URL": there.url, "SLACK_BOT_TOKEN": "t",
            "SLACK_BASE_URL": f"{there.url}/slack/", "OPENVIBE_LLM": "openai", "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": f"{model.url}/v1",
        }  # fmt: skip
        herald, thinker = (
            stack.enter_context(sites.begun(tmp_path / name, OPENVIBE_ONLY=name, **shared))
            for name in ("herald", "thinker")
        )
        for site in (herald, thinker):
            sites.await_health(site)
            body = {"url": f"{there.url}/{site.home.name}", "kinds": ["run.completed"]}
            assert site.call("POST", "/events/subscribe", body).status_code == 201
        mine, state = headers.new_trace(), "vendor=1"
        answer = httpx.post(
            f"{herald.url}/v1/operators/herald/activate",
            json={"trigger": "tell", "input": {"deal": "7"}},
            headers={"Authorization": f"Bearer {herald.token}", "traceparent": mine, "tracestate": state},
            timeout=15, trust_env=False,
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
        for site in (herald, thinker):
            run = until(lambda site=site: ended(site, site.home.name), f"{site.home.name}'s run has ended", seconds=60)
            assert run["status"] == "completed", run
        hops = ("/crm/v3/objects/contacts/7", "/slack/chat.postMessage", "/herald", "/thinker")
        until(lambda: set(hops) <= set(there.traces), "both ends are told of")

        assert {hop: there.traces[hop] for hop in hops} == dict.fromkeys(hops, (mine, state))
        event = stored(bus.url, EVENT)
        assert (event["traceparent"], event["tracestate"]) == (mine, state)
        assert [(told["traceparent"], told["tracestate"]) for told in model.headers] == [(mine, state)]
