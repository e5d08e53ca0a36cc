"""Two servers with an operator each and databases of their own: all that passes between them passes over one NATS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, Site, until
from tests.servers import Server

pytestmark = pytest.mark.timeout(300)

MODULE = "tests.acceptance.neighbours"


@pytest.fixture(scope="module")
def nats() -> Iterator[Server]:
    with servers.nats() as server:
        yield server


@pytest.fixture(scope="module")
def scout(nats: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server with the scout."""
    home = tmp_path_factory.mktemp("scout")
    with sites.running(home, NATS_URL=nats.url, OPENVIBE_OPERATORS=MODULE, OPENVIBE_ONLY="scout") as site:
        yield site


@pytest.fixture(scope="module")
def desk(nats: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server with the desk."""
    home = tmp_path_factory.mktemp("desk")
    with sites.running(home, NATS_URL=nats.url, OPENVIBE_OPERATORS=MODULE, OPENVIBE_ONLY="desk") as site:
        yield site


def runs(site: Site, operator: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.call("GET", f"/operators/{operator}/runs").json()["results"]
    return found


def filed(site: Site, company: str) -> list[dict[str, Any]]:
    """The runs that filed this company, once each has ended."""
    found = [site.read(f"/operators/desk/runs/{item['run_id']}") for item in runs(site, "desk")]
    return [run for run in found if run["workflow_id"] == "file" and run["input"] == {"company": company}]


def rated(site: Site) -> list[dict[str, Any]]:
    return [item for item in runs(site, "desk") if item["workflow_id"] == "rate"]


def known(site: Site) -> dict[str, str]:
    return {item["id"]: item["state"] for item in site.call("GET", "/servers").json()["servers"]}


def acquainted(scout: Site) -> None:
    """Wait until the scout's server knows that the desk answers, and it does."""
    until(lambda: known(scout).get("desk") == "fresh", "the scout's server knows the desk's", seconds=60)
    found = ended(scout, scout.start_run("scout", "inquire", {"company": "First"}))
    assert found["status"] == "completed", found["error"]


def ended(site: Site, run: str) -> dict[str, Any]:
    return site.wait_for(run, *ENDED)


def test_an_event_emitted_on_one_server_starts_its_listener_on_the_other_once(scout: Site, desk: Site) -> None:
    first = scout.start_run("scout", "find", {"company": "Acme"})
    assert ended(scout, first)["status"] == "completed"
    [run] = until(lambda: [item for item in filed(desk, "Acme") if item["status"] in ENDED], "Acme is filed")
    assert run["status"] == "completed", run["error"]
    # What was put with the event was there when the event was heard.
    assert run["output"]["intel"] == {"size": 4}
    ended(scout, scout.start_run("scout", "find", {"company": "Later"}))
    until(lambda: filed(desk, "Later"), "a later event has passed")
    assert len(filed(desk, "Acme")) == 1
    assert {item["operator_id"] for item in runs(scout, "scout")} == {"scout"}


def test_a_request_of_a_node_is_answered_by_the_other_server(scout: Site, desk: Site) -> None:
    acquainted(scout)
    before = len(rated(desk))
    run = scout.start_run("scout", "inquire", {"company": "Initech"})
    asked = ended(scout, run)
    assert (asked["status"], asked["output"]["rating"]) == ("completed", 70), asked["error"]
    kinds = [event["type"] for event in scout.events(run)]
    assert (kinds.count("reply.requested"), kinds.count("reply.answered")) == (1, 1)
    assert len(rated(desk)) == before + 1


def test_a_request_that_nobody_can_answer_fails_and_says_why(scout: Site, desk: Site) -> None:
    acquainted(scout)
    lost, stray = (scout.start_run("scout", workflow, {"company": "Acme"}) for workflow in ("lost", "stray"))
    assert "'desk' has no capability 'poetry'" in ended(scout, lost)["error"]["message"]
    assert "nobody offers 'anything' of 'nobody'" in ended(scout, stray)["error"]["message"]


def test_a_request_outlives_the_death_of_the_bridge_that_took_it(scout: Site, desk: Site) -> None:
    acquainted(scout)
    desk.kill("worker-1")
    desk.kill("bridge")
    run = scout.start_run("scout", "inquire", {"company": "Hooli"})
    asked = ended(scout, run)
    assert (asked["status"], asked["output"]["rating"]) == ("completed", 50), asked["error"]


def test_shared_context_that_is_put_on_one_server_is_read_on_the_other(scout: Site, desk: Site) -> None:
    path = "/context/leads/Öl GmbH/note"
    assert scout.call("PUT", path, {"value": {"hot": True}}).status_code == 201
    there = until(lambda: _read(desk, path), "the value has arrived")
    assert (there["value"], there["author"]) == ({"hot": True}, "nats")
    assert desk.call("PUT", path, {"value": {"hot": False}}).status_code == 200
    back = until(lambda: _read(scout, path, value={"hot": False}), "the answer has come back")
    assert back["author"] == "nats"
    assert scout.call("DELETE", path).status_code == 204
    until(lambda: desk.call("GET", path).status_code == 404, "the deletion has arrived")
    history = desk.call("GET", f"{path}?history=1").json()["history"]
    assert [item["deleted"] for item in history] == [True, False, False]


def _read(site: Site, path: str, **fields: Any) -> dict[str, Any] | None:
    answer = site.call("GET", path)
    found: dict[str, Any] = answer.json()
    return found if answer.status_code == 200 and fields.items() <= found.items() else None


def test_each_server_knows_what_the_other_offers(scout: Site, desk: Site) -> None:
    for site in (scout, desk):
        until(lambda site=site: known(site) == {"desk": "fresh", "scout": "fresh"}, "both are known", seconds=60)
    [found] = [item for item in scout.call("GET", "/servers").json()["servers"] if item["id"] == "desk"]
    assert (found["operators"], found["capabilities"]) == (["desk"], {"desk": ["rating"]})
