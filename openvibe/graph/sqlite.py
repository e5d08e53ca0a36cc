"""Checkpoints and pending writes in SQLite: a file that outlives the process, or memory that does not."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from openvibe.errors import SetupError
from openvibe.graph.rows import CheckpointKey, CheckpointRow, WriteRow

MEMORY = ":memory:"
#: How long a transaction waits for another process's, in seconds.
PATIENCE = 30.0

_TABLES = """
CREATE TABLE IF NOT EXISTS checkpoint (
    thread_id TEXT, ns TEXT, checkpoint_id TEXT, parent_id TEXT, run_id TEXT, type TEXT, blob BLOB, metadata TEXT,
    PRIMARY KEY (thread_id, ns, checkpoint_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS write (
    thread_id TEXT, ns TEXT, checkpoint_id TEXT, task_id TEXT, task_path TEXT, idx INTEGER, channel TEXT, type TEXT,
    blob BLOB,
    PRIMARY KEY (thread_id, ns, checkpoint_id, task_id, idx)
) WITHOUT ROWID;
"""


class Database:
    """One connection that a process's threads share, one transaction at a time."""

    def __init__(self, path: str = MEMORY) -> None:
        try:
            self._connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error as error:
            raise SetupError(f"SQLite cannot open {path!r}: {error}") from error
        self._lock = threading.RLock()
        self._depth = 0
        self.close = weakref.finalize(self, _close, self._connection, self._lock)

    def create(self, tables: str) -> None:
        """Create what is missing."""
        with self._lock:
            self._connection.executescript(tables)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of it or nothing; one within another is part of it."""
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                if self._depth == 1:
                    self._connection.execute("ROLLBACK")
                raise
            else:
                if self._depth == 1:
                    self._connection.execute("COMMIT")
            finally:
                self._depth -= 1

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Write, and return how many rows changed."""
        with self.transaction():
            return self._connection.execute(statement, values).rowcount

    def write_many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Write the same with many values."""
        with self.transaction():
            self._connection.executemany(statement, values)


def _close(connection: sqlite3.Connection, lock: threading.RLock) -> None:
    # SQLite crashes the process if another thread is in the midst of something; later it is told that it came too late.
    with lock:
        connection.close()


class SqliteRows:
    """Rows in a SQLite database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(_TABLES)

    def save(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow]) -> None:
        """See `Rows.save`."""
        with self._database.transaction():
            self._database.write_many(
                "INSERT OR REPLACE INTO checkpoint VALUES (?,?,?,?,?,?,?,?)", _values(checkpoints)
            )
            for word, rows in (
                ("REPLACE", [row for row in writes if row.idx < 0]),
                ("IGNORE", [row for row in writes if row.idx >= 0]),
            ):
                self._database.write_many(f"INSERT OR {word} INTO write VALUES (?,?,?,?,?,?,?,?,?)", _values(rows))  # noqa: S608  # two words of our own

    def checkpoints(
        self,
        *,
        threads: Collection[str] | None = None,
        run_ids: Collection[str] | None = None,
        ns: str | None = None,
        checkpoint_id: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[CheckpointRow]:
        """See `Rows.checkpoints`."""
        conditions, values = ["1"], []
        for column, among in (("thread_id", threads), ("run_id", run_ids)):
            if among is not None:
                conditions.append(f"{column} IN ({','.join('?' * len(among))})")
                values += list(among)
        for comparison, value in (("ns = ?", ns), ("checkpoint_id = ?", checkpoint_id), ("checkpoint_id < ?", before)):
            if value is not None:
                conditions.append(comparison)
                values.append(value)
        statement = f"SELECT * FROM checkpoint WHERE {' AND '.join(conditions)} ORDER BY checkpoint_id DESC LIMIT ?"  # noqa: S608  # columns of our own
        return [
            CheckpointRow(*row) for row in self._database.rows(statement, [*values, -1 if limit is None else limit])
        ]

    def writes(self, keys: Collection[CheckpointKey]) -> list[WriteRow]:
        """See `Rows.writes`."""
        statement = "SELECT * FROM write WHERE thread_id = ? AND ns = ? AND checkpoint_id = ?"
        found = [WriteRow(*row) for key in keys for row in self._database.rows(statement, key)]
        return sorted(found, key=lambda row: (row.task_path, row.task_id, row.idx))

    def delete(self, keys: Collection[CheckpointKey]) -> None:
        """See `Rows.delete`."""
        with self._database.transaction():
            for table in ("checkpoint", "write"):
                self._database.write_many(
                    f"DELETE FROM {table} WHERE thread_id = ? AND ns = ? AND checkpoint_id = ?",  # noqa: S608  # two tables of our own
                    list(keys),
                )

    def release(self) -> None:
        """Keep the connection: it belongs to the process."""


def _values(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [tuple(getattr(row, name) for name in type(row).__slots__) for row in rows]
