"""Kept values inside one process: buckets of keys, with revisions and watchers."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter

from openvibe.bus.mailbox import Mailbox
from openvibe.bus.protocol import HISTORY, Entry, WatchHandler
from openvibe.errors import RevisionConflict


def _histories() -> dict[str, deque[Entry]]:
    return defaultdict(lambda: deque(maxlen=HISTORY))


@dataclass
class Bucket:
    """One bucket."""

    histories: dict[str, deque[Entry]] = field(default_factory=_histories)
    watchers: list[Mailbox[Entry]] = field(default_factory=list)
    revision: int = 0

    def last(self, key: str) -> Entry | None:
        """Return the last revision of a key, which may be its deletion."""
        return self.histories[key][-1] if key in self.histories else None

    def change(self, key: str, value: bytes, *, deleted: bool = False) -> Entry:
        """Keep a revision."""
        self.revision += 1
        entry = Entry(key, value, self.revision, datetime.now(UTC), deleted)
        self.histories[key].append(entry)
        return entry

    def expect(self, key: str, revision: int | None) -> None:
        """Raise `RevisionConflict` if the key's last revision is another one."""
        last = self.last(key)
        if revision is None or (last.revision if last else 0) == revision or (revision == 0 and last and last.deleted):
            return
        raise RevisionConflict(f"{key!r} has revision {last.revision if last else 0}, not {revision}")

    def living(self) -> list[str]:
        """Return the keys that have a value."""
        return sorted(key for key, history in self.histories.items() if not history[-1].deleted)

    def watch(self, handler: WatchHandler, *, about: str) -> Mailbox[Entry]:
        """Tell a handler every value, then every change."""
        watcher = Mailbox(handler, about=about, key=attrgetter("key"))
        for entry in sorted((self.histories[key][-1] for key in self.living()), key=lambda entry: entry.revision):
            watcher.take(entry)
        self.watchers.append(watcher)
        return watcher
