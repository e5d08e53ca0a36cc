"""What all sections of a measurement stand on: the servers, a folder, and the options."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import servers


@dataclass(frozen=True)
class Ground:
    """PostgreSQL and Redis where they are installed, else what is embedded: then `database` and `broker` are empty."""

    options: argparse.Namespace
    home: Path
    database: str
    broker: str

    @property
    def where(self) -> str:
        """Say on which of them a figure was measured."""
        return "PostgreSQL, Redis" if self.database else "SQLite, filesystem broker"

    def environment(self) -> dict[str, str]:
        """Return what a site is told of them; its database is an empty one of its own."""
        if not self.database:
            return {}
        return {"DATABASE_URL": servers.new_database(self.database), "CELERY_BROKER_URL": self.broker}


@contextmanager
def prepared(options: argparse.Namespace) -> Iterator[Ground]:
    """Start the servers, until the block ends."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="openvibe-bench-")))
        database = broker = ""
        if not options.embedded and servers.available("postgres") and servers.available("redis"):
            database = stack.enter_context(servers.postgres()).url
            broker = stack.enter_context(servers.redis()).url
        yield Ground(options, home, database, broker)
