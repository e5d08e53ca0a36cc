"""The same on PostgreSQL and Redis, with two worker processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, Site, until

pytestmark = [pytest.mark.postgres, pytest.mark.redis, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An OpenVibe on PostgreSQL and Redis."""
    with (
        servers.postgres() as postgres,
        servers.redis() as broker,
        sites.running(
            tmp_path_factory.mktemp("grown"),
            DATABASE_URL=servers.new_database(postgres.url),
            CELERY_BROKER_URL=broker.url,
            OPENVIBE_WORKER_PROCESSES="2",
            OPENVIBE_SIMULATED_PACE="60",
        ) as site,
    ):
        yield site


def test_engagement_waits_is_approved_and_ends_on_postgresql_and_redis(grown: Site) -> None:
    run = grown.start_run("revenue_ops", "engagement")
    gate = grown.wait_for(run, "waiting", *ENDED)["waits"][0]
    body = {"decision": "approve", "wait_id": gate["id"], "version": 1, "payload_sha256": gate["payload_sha256"]}
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: grown.call("POST", f"{run}/resume", body).status_code, range(10)))
    assert set(answers) == {200}
    assert grown.wait_for(run, *ENDED)["status"] == "completed"
    assert [event["type"] for event in grown.events(run)].count("gate.decided") == 1


def test_many_runs_survive_the_death_of_a_worker_on_postgresql_and_redis(grown: Site) -> None:
    runs = [grown.start_run("company_intel", "query", {"company_name": f"Company {n}"}) for n in range(12)]
    until(lambda: sum(grown.read(run)["status"] == "running" for run in runs) >= 6, "several runs are running")
    grown.kill("worker-1")
    for run in runs:
        ended = grown.wait_for(run, *ENDED, seconds=90)
        assert ended["status"] == "completed", ended["error"]
        events = grown.events(run)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        finished = Counter(event["step_id"] for event in events if event["type"] == "step.finished")
        assert sorted(finished.values()) == [1, 1, 1, 1]


def test_a_flushed_broker_loses_no_run(grown: Site) -> None:
    client = redis.Redis.from_url(grown.environment["CELERY_BROKER_URL"])
    runs = [grown.start_run("company_intel", "query", {"company_name": f"Flushed {n}"}) for n in range(5)]
    client.flushall()
    client.close()
    assert {grown.wait_for(run, *ENDED, seconds=90)["status"] for run in runs} == {"completed"}
