"""`DATABASE_URL` as Django's database settings: SQLite by default, PostgreSQL when told."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from openvibe.errors import SetupError
from openvibe_site.env import Environment

#: Seconds that a writer waits for SQLite's one write lock.
LOCK_SECONDS = 30

#: Seconds that a thread waits for one of PostgreSQL's connections, and so the longest that anybody waits to hear that
#: the database is away.
PATIENCE = 10


def settings(environment: Environment) -> dict[str, Any]:
    """Return the settings of the default database.

    Raises:
        SetupError: the URL is none that OpenVibe knows.
    """
    url = environment.database_url
    if not url:
        return sqlite(str(environment.home / "openvibe.db"))
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return sqlite(unquote(parts.path))
    if parts.scheme in ("postgres", "postgresql"):
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.lstrip("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname or "",
            "PORT": str(parts.port or ""),
            # Every request and every played run has a thread of its own; they share these connections, and a run that
            # is in the middle of a node holds none.
            "OPTIONS": {
                "pool": {"min_size": 1, "max_size": environment.database_connections, "timeout": PATIENCE},
                # A statement that a connection has seen a few times is parsed and planned no more.
                "server_side_binding": True,
                "prepare_threshold": 3,
                **dict(parse_qsl(parts.query)),
                "options": _session(environment, parts.query),
            },
        }
    raise SetupError(f"DATABASE_URL has the scheme {parts.scheme!r}; use postgresql://… or sqlite:///…")


def _session(environment: Environment, query: str) -> str:
    """Return what PostgreSQL is told for every connection; what `DATABASE_URL` says itself comes last and counts."""
    # A process that froze in the middle of a transaction holds a run's row, and the clock would wait for it for ever.
    patience = f"-c idle_in_transaction_session_timeout={int(environment.lease_seconds * 1000)}"
    return f"{patience} {dict(parse_qsl(query)).get('options', '')}".strip()


def sqlite(path: str) -> dict[str, Any]:
    """Return the settings of a SQLite file that many threads of several processes write to."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        # Opening the file costs more than a query; each thread keeps its connection.
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "timeout": LOCK_SECONDS,
            # A transaction that begins reading and then writes cannot wait for the lock; one that begins writing can.
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=30000;",
        },
    }
