"""The embedded broker as a worker sees it."""

import pytest

from openvibe_site.celery import app


@pytest.mark.timeout(30)
def test_a_worker_that_waits_for_a_message_looks_soon_whether_it_is_to_end():
    with app.connection_for_read() as connection, pytest.raises(TimeoutError):
        connection.drain_events(timeout=3600)
