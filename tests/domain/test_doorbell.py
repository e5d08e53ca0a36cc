"""The bell, on brokers that are there and on brokers that are away."""

from __future__ import annotations

import time
from collections.abc import Iterator

import celery
import pytest
import redis
from celery import current_app
from kombu import Connection
from kombu.exceptions import OperationalError

from openvibe_site import celery as site
from openvibe_site import ports
from operators.models import Operator
from operators.services import doorbell
from tests import servers
from tests.servers import Server

GROCER = Operator(slug="grocer")


@pytest.fixture
def broker() -> Iterator[Server]:
    """A real Redis in which bells hang, as they do at a site that names one."""
    before = current_app._get_current_object()
    with servers.redis() as server:
        app = celery.Celery("bells", broker=server.url, set_as_current=False)
        app.conf.broker_transport_options = site.IMPATIENT | site.FORGETFUL
        app.set_current()
        yield server
        before.set_current()
        app.pool.force_close_all()


@pytest.fixture
def url(broker: Server) -> str:
    return broker.url


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_away_holds_nobody_up(scheme):
    began = time.monotonic()

    with (
        Connection(f"{scheme}://{ports.LOOPBACK}:{ports.free()}/0", transport_options=site.IMPATIENT) as away,
        pytest.raises(OperationalError),
    ):
        _ = away.default_channel

    assert time.monotonic() - began < 1


@pytest.mark.redis
def test_a_broker_tells_how_many_bells_hang(url):
    assert doorbell.hanging("runs-grocer") == 0
    for number in range(3):
        doorbell.ring(f"run_{number}", GROCER)
    assert doorbell.hanging("runs-grocer") == 3
    assert doorbell.hanging("runs-baker") == 0


@pytest.mark.redis
def test_a_broker_that_was_away_is_asked_again(broker):
    doorbell.ring("run_1", GROCER)
    broker.kill()
    assert doorbell.hanging("runs-grocer") == 0
    doorbell.ring("run_2", GROCER)
    broker.start()
    doorbell.ring("run_3", GROCER)
    assert doorbell.hanging("runs-grocer") == 1


@pytest.mark.redis
def test_a_connection_that_a_brokers_end_has_closed_is_not_asked(url):
    doorbell.ring("run_1", GROCER)
    with current_app.pool.acquire(block=True) as pooled:
        pooled.close()

    assert doorbell.hanging("runs-grocer") == 1


@pytest.mark.redis
def test_a_bell_that_a_worker_has_taken_is_written_down_nowhere(url):
    doorbell.ring("run_1", GROCER)
    with Connection(url, transport_options=site.FORGETFUL) as connection:
        queue = connection.SimpleQueue("runs-grocer")
        taken = queue.get(timeout=5)
        with redis.Redis.from_url(url) as client:
            assert client.llen("runs-grocer") == 0
            assert not client.exists("unacked", "unacked_index")
        taken.ack()
        queue.close()


def test_a_broker_that_is_away_has_no_bells():
    before = current_app._get_current_object()
    app = celery.Celery("away", broker=f"redis://{ports.LOOPBACK}:{ports.free()}/0", set_as_current=False)
    app.conf.broker_transport_options = site.IMPATIENT
    app.set_current()
    try:
        assert doorbell.hanging("runs-grocer") == 0
    finally:
        before.set_current()
