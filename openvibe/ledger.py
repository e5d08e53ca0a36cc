"""What a runtime keeps: runs, their checkpoints and effects, and the shared context, in one SQLite database.

A database in memory ends with the process. A file can be shared by processes: each change is one transaction, and a run
belongs to whoever took it last.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from openvibe import canonical
from openvibe.errors import SetupError
from openvibe.graph.rows import CheckpointRow, WriteRow
from openvibe.graph.sqlite import MEMORY, Database, SqliteRows
from openvibe.host import Change, Effect
from openvibe.runs import Run

_TABLES = """
CREATE TABLE IF NOT EXISTS run (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, operator_id TEXT, status TEXT, epoch INTEGER, due TEXT,
    told TEXT
);
CREATE INDEX IF NOT EXISTS run_due ON run (due) WHERE due IS NOT NULL;
CREATE TABLE IF NOT EXISTS effect (
    run_id TEXT, step_id TEXT, key TEXT, state TEXT, result TEXT, attempt INTEGER, PRIMARY KEY (run_id, step_id, key)
);
CREATE TABLE IF NOT EXISTS context_revision (
    bucket TEXT, key TEXT, revision INTEGER, value TEXT, PRIMARY KEY (bucket, key, revision)
) WITHOUT ROWID;
"""


class Overtaken(Exception):
    """The run went on, or ended, without whoever now plays it."""


class Ledger:
    """A database of runs."""

    def __init__(self, path: str = MEMORY) -> None:
        self._database = Database(path)
        self.rows = SqliteRows(self._database)
        self._database.create(_TABLES)
        self._news = threading.Condition()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Do all of it or nothing."""
        return self._database.transaction()

    def run(self, run_id: str) -> Run | None:
        """Return a run as it now stands."""
        found = self._runs("WHERE id = ?", run_id)
        return found[0] if found else None

    def runs(self, *, operator: str = "") -> list[Run]:
        """Return the runs, the oldest first."""
        return self._runs("WHERE operator_id = ?", operator) if operator else self._runs("")

    def left(self) -> list[Run]:
        """Return the runs that have not ended."""
        return self._runs("WHERE status IN ('queued', 'running', 'waiting')")

    def due(self, now: datetime, *, operators: Sequence[str]) -> list[Run]:
        """Return the runs of these operators that the clock has something to do with, the most urgent first."""
        among = f"due <= ? AND operator_id IN ({','.join('?' * len(operators))})"
        return self._runs(f"WHERE {among} ORDER BY due, number", now.isoformat(), *operators, ordered=True)

    def next_due(self, *, operators: Sequence[str]) -> datetime | None:
        """Return when the next run of these operators is due."""
        among = f"operator_id IN ({','.join('?' * len(operators))})"
        [(text,)] = self._database.rows(f"SELECT min(due) FROM run WHERE {among}", operators)  # noqa: S608  # marks only
        return datetime.fromisoformat(text) if text else None

    def add(self, run: Run) -> None:
        """Keep a new run."""
        self._database.write(
            "INSERT INTO run (id, operator_id, status, epoch, due, told) VALUES (?,?,?,?,?,?)",
            (run.id, run.operator_id, *_columns(run)),
        )

    def change(self, run: Run) -> None:
        """Keep a run's new state."""
        self._database.write(
            "UPDATE run SET status = ?, epoch = ?, due = ?, told = ? WHERE id = ?", (*_columns(run), run.id)
        )

    def take(self, run_id: str, *, now: datetime) -> Run | None:
        """Claim a queued run for playing; None if there is nothing to claim."""
        with self.transaction():
            run = self.run(run_id)
            if run is None or run.status != "queued":
                return None
            run.status, run.epoch, run.started_at = "running", run.epoch + 1, run.started_at or now
            self.change(run)
            return run

    def commit(
        self, run: Run, *, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow],
        puts: Mapping[tuple[str, str], Any], started: Iterable[Run],
    ) -> None:  # fmt: skip
        """Keep what one step brought, under the claim of `take`, in one transaction.

        Raises:
            Overtaken: the claim is gone; nothing is kept.
        """
        with self.transaction():
            stored = self._database.rows("SELECT status, epoch FROM run WHERE id = ?", (run.id,))
            if stored != [("running", run.epoch)]:
                raise Overtaken(run.id)
            self.rows.save(checkpoints, writes)
            self._put(puts)
            self.change(run)
            for other in started:
                self.add(other)
        self._tell(puts)

    def value(self, bucket: str, key: str) -> Any:
        """Return a value of the shared context, or None."""
        return self.entry(bucket, key).value

    def entry(self, bucket: str, key: str) -> Change:
        """Return the latest revision of a value of the shared context."""
        latest = (
            "SELECT revision, value FROM context_revision WHERE bucket = ? AND key = ? ORDER BY revision DESC LIMIT 1"
        )
        found = self._database.rows(latest, (bucket, key))
        return _changed(found[0]) if found else Change(0)

    def first_after(self, bucket: str, key: str, revision: int) -> Change | None:
        """Return the first change of a value after this revision, or None."""
        first = "SELECT revision, value FROM context_revision WHERE bucket = ? AND key = ? AND revision > ? LIMIT 1"
        found = self._database.rows(first, (bucket, key, revision))
        return _changed(found[0]) if found else None

    def await_news(self, seconds: float) -> None:
        """Return when a value has been put in this process, or after so many seconds."""
        with self._news:
            self._news.wait(seconds)

    def watching(self, *, operators: Sequence[str]) -> list[Run]:
        """Return the runs of these operators that wait for a change of the shared context, the oldest first."""
        waits = (
            "SELECT 1 FROM json_each(told, '$.waits') "
            "WHERE json_extract(value, '$.kind', '$.status') = json_array('change', 'pending')"
        )
        among = f"operator_id IN ({','.join('?' * len(operators))})"
        return self._runs(f"WHERE status = 'waiting' AND {among} AND EXISTS ({waits})", *operators)

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return a bucket's keys that begin with `prefix`, sorted."""
        found = self._database.rows("SELECT DISTINCT key FROM context_revision WHERE bucket = ?", (bucket,))
        return sorted(key for (key,) in found if key.startswith(prefix))

    def put(self, values: Mapping[tuple[str, str], Any]) -> None:
        """Keep values of the shared context: (bucket, key) → value."""
        self._put(values)
        self._tell(values)

    def _put(self, values: Mapping[tuple[str, str], Any]) -> None:
        rows = [(*place, canonical.dumps(value), *place) for place, value in values.items()]
        self._database.write_many(
            "INSERT INTO context_revision SELECT ?, ?, coalesce(max(revision), 0) + 1, ? FROM context_revision "
            "WHERE bucket = ? AND key = ?",
            rows,
        )

    def _tell(self, values: Mapping[tuple[str, str], Any]) -> None:
        if values:
            with self._news:
                self._news.notify_all()

    def effect(self, run_id: str, step_id: str, key: str) -> Effect:
        """Look an effect up; a new one is noted as attempted."""
        with self.transaction():
            where = (run_id, step_id, key)
            statement = "SELECT state, result, attempt FROM effect WHERE run_id = ? AND step_id = ? AND key = ?"
            found = self._database.rows(statement, where)
            state, result, attempt = found[0] if found else ("failed", None, 0)
            if state == "confirmed":
                return Effect("confirmed", json.loads(result), attempt)
            if state == "unknown":
                return Effect("unknown", attempt=attempt)
            values = (*where, "unknown", None, attempt + 1)
            self._database.write("INSERT OR REPLACE INTO effect VALUES (?,?,?,?,?,?)", values)
            return Effect("new", attempt=attempt + 1)

    def settle(self, run_id: str, step_id: str, key: str, *, state: str, result: Any = None) -> None:
        """Note how an attempt came out. What was confirmed stays so, whatever an earlier attempt says late."""
        self._database.write(
            "UPDATE effect SET state = ?, result = ? "
            "WHERE run_id = ? AND step_id = ? AND key = ? AND (state != 'confirmed' OR ? = 'confirmed')",
            (state, canonical.dumps(result), run_id, step_id, key, state),
        )

    def _runs(self, condition: str, *values: Any, ordered: bool = False) -> list[Run]:
        order = "" if ordered else "ORDER BY number"
        found = self._database.rows(f"SELECT told FROM run {condition} {order}", values)  # noqa: S608  # conditions of our own
        return [Run.model_validate_json(told) for (told,) in found]


def ledger(checkpointer: Any) -> Ledger:
    """Return what keeps a runtime's runs: `memory`, or `sqlite:///<path>`, or a `Ledger` as it is.

    Raises:
        SetupError: it is none of these, or the file cannot be opened.
    """
    if isinstance(checkpointer, Ledger):
        return checkpointer
    makers: dict[str, Callable[[str], Ledger]] = {"memory": lambda _: Ledger(), "sqlite": Ledger}
    kind, _, path = checkpointer.partition(":///") if isinstance(checkpointer, str) else ("", "", "")
    if kind not in makers or (kind == "sqlite") != bool(path):
        raise SetupError(f"checkpointer={checkpointer!r}: use 'memory' or 'sqlite:///runs.db'")
    return makers[kind](path)


def _changed(row: tuple[int, str]) -> Change:
    return Change(row[0], json.loads(row[1]))


def _columns(run: Run) -> tuple[Any, ...]:
    due = run.due()
    return run.status, run.epoch, due.isoformat() if due else None, run.model_dump_json()
