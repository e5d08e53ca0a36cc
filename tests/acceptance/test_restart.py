"""PostgreSQL restarts under a running site: who asks is told to come back, nothing else, and then all is well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, Site, until
from tests.servers import Server

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]
Place = tuple[Site, Server]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A site and its PostgreSQL."""
    with (
        servers.postgres() as postgres,
        sites.running(tmp_path / "home", DATABASE_URL=servers.new_database(postgres.url)) as site,
    ):
        yield site, postgres


def page(site: Site, cookie: str, path: str = "/agents/") -> httpx.Response:
    return httpx.get(f"{site.url}{path}", headers={"Cookie": cookie}, timeout=30, trust_env=False)


def ask(site: Site) -> httpx.Response:
    headers = {"Authorization": f"Bearer {site.token}"}
    return httpx.get(f"{site.url}/v1/operators", headers=headers, timeout=30, trust_env=False)


def test_programs_and_people_are_told_to_come_back_while_postgresql_is_away(place: Place) -> None:
    site, postgres = place
    cookie = site.session()
    with ThreadPoolExecutor(12) as threads:
        # Every one of these leaves a connection in the pool.
        assert {answer.status_code for answer in threads.map(lambda _: page(site, cookie), range(60))} == {200}
    postgres.stop()
    told = ask(site)
    assert (told.status_code, told.headers["Content-Type"]) == (503, "application/problem+json")
    assert int(told.headers["Retry-After"]) > 0
    assert (told.json()["title"], told.json()["status"]) == ("database_away", 503)
    shown = page(site, cookie)
    assert (shown.status_code, shown.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert int(shown.headers["Retry-After"]) > 0
    assert "Back in a moment" in shown.text
    assert page(site, cookie, "/agents/nothing/at/all/").status_code in (404, 503)
    postgres.start()
    until(lambda: ask(site).status_code == 200, "the site reaches PostgreSQL again")
    # No connection of before is left in the pool to refuse somebody.
    until(lambda: {page(site, cookie).status_code for _ in range(20)} == {200}, "no page is refused any more")
    run = site.start_run("company_intel", "query", {"company_name": "Back"})
    assert site.wait_for(run, *ENDED)["status"] == "completed"


def test_a_restart_is_never_told_as_a_fault_of_ours(place: Place) -> None:
    site, postgres = place
    cookie = site.session()
    seen: set[int] = set()
    done = threading.Event()

    def knock(number: int) -> None:
        while not done.is_set():
            seen.add(ask(site).status_code if number % 2 else page(site, cookie).status_code)

    with ThreadPoolExecutor(6) as threads:
        for number in range(6):
            threads.submit(knock, number)
        try:
            for _ in range(2):
                until(lambda: 200 in seen, "the site answers")
                postgres.stop()
                postgres.start()
                seen.discard(200)
                until(lambda: 200 in seen, "the site answers again", seconds=60)
        finally:
            done.set()
    assert seen <= {200, 503}
