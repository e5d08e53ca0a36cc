"""The bell, when the broker is away."""

from __future__ import annotations

import time

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError

from openvibe_site import celery, ports


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_away_holds_nobody_up(scheme):
    began = time.monotonic()

    with (
        Connection(f"{scheme}://{ports.LOOPBACK}:{ports.free()}/0", transport_options=celery.IMPATIENT) as away,
        pytest.raises(OperationalError),
    ):
        _ = away.default_channel

    assert time.monotonic() - began < 1
