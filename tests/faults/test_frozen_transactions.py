"""A process that freezes while it holds a row: others get the row when its lease would be over."""

from __future__ import annotations

import psycopg
import pytest

from openvibe_site import database, env
from tests import servers


@pytest.mark.postgres
def test_a_transaction_that_its_process_forgot_ends_with_the_lease() -> None:
    with servers.postgres() as server:
        environment = env.read({"DATABASE_URL": server.url, "OPENVIBE_LEASE_SECONDS": "0.5"})
        options = database.settings(environment)["OPTIONS"]["options"]
        with psycopg.connect(server.url, autocommit=True) as other:
            other.execute("CREATE TABLE run (id int)")
            other.execute("INSERT INTO run VALUES (1)")
            frozen = psycopg.connect(server.url, options=options)
            frozen.execute("UPDATE run SET id = 2")
            other.execute("SET lock_timeout = '10s'")
            other.execute("UPDATE run SET id = 3")
            # The reason arrives, or the end of the connection before it.
            with pytest.raises((psycopg.errors.IdleInTransactionSessionTimeout, psycopg.OperationalError)):
                frozen.execute("SELECT 1")
            frozen.close()


def test_what_the_database_url_says_of_sessions_is_kept() -> None:
    url = "postgresql://somebody@host/name?sslmode=require&options=-c%20work_mem%3D8MB"
    found = database.settings(env.read({"DATABASE_URL": url, "OPENVIBE_LEASE_SECONDS": "2"}))["OPTIONS"]
    assert found["options"] == "-c idle_in_transaction_session_timeout=2000 -c work_mem=8MB"
    assert found["sslmode"] == "require"
