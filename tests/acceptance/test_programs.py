"""Another program against the real processes: it brings an operator, follows a run, and is told of its end."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance import site as sites
from tests.acceptance.site import Site, until

GREETER = """\
operators:
  - id: greeter
    fields:
      person: str
      greeting: {type: str, default: ""}
    workflows:
      - id: greet
        inputs: [person]
        sample_input: {person: Ada}
        nodes:
          - {id: write, type: llm, system: You greet., user: "Greet {{person}}.", output_key: greeting}
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with sites.running(tmp_path / "home", OPENVIBE_WEBHOOK_PRIVATE="1", OPENVIBE_SIMULATED_PACE="60") as own:
        yield own


@contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Somebody's server: its address, and what it was told."""
    heard: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", heard
    server.shutdown()
    server.server_close()


@contextmanager
def following(site: Site, path: str, last: int | None = None) -> Iterator[Iterator[dict[str, Any]]]:
    headers = {"Authorization": f"Bearer {site.token}", "Accept": "text/event-stream"}
    if last is not None:
        headers["Last-Event-ID"] = str(last)
    with httpx.stream("GET", f"{site.url}{path}", headers=headers, timeout=30, trust_env=False) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert (next(lines), next(lines)) == ("retry: 1000", ": connected")
        yield (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


def test_a_program_brings_an_operator_follows_its_run_and_is_told_of_its_end(site: Site) -> None:
    with listening() as (address, heard):
        headers = {"Authorization": f"Bearer {site.token}"}
        answer = httpx.post(f"{site.url}/v1/operators", content=GREETER, headers=headers, trust_env=False)
        assert answer.status_code == 201, answer.text
        answer = site.call("POST", "/events/subscribe", {"url": address, "kinds": ["run.*"], "operator": "greeter"})
        assert answer.status_code == 201, answer.text

        with following(site, "/v1/events/stream?limit=0&kind=run.*") as general:
            run = site.start_run("greeter", "greet")
            run_id = run.rsplit("/", 1)[-1]
            told = [next(general), next(general)]
        assert [(event["type"], event["session_id"]) for event in told] == [
            ("run.started", run_id), ("run.completed", run_id)]  # fmt: skip
        assert site.read(run)["output"]["greeting"]

        with following(site, f"/api/agents/events?runId={run_id}") as thread:
            seqs = []
            for event in thread:
                seqs.append(event["seq"])
                if event["type"] == "run.completed":
                    break
        assert seqs == list(range(1, len(seqs) + 1))
        with following(site, f"/v1/events/stream?run_id={run_id}", last=seqs[-2]) as rest:
            assert next(rest)["seq"] == seqs[-1]

        until(lambda: len(heard) >= 2, "the subscriber was told")
        assert sorted(item["type"] for item in heard) == ["run.completed", "run.started"]
        assert site.call("DELETE", "/operators/greeter").status_code == 204
        assert site.call("GET", run).json()["status"] == "completed"
