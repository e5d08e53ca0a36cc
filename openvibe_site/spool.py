"""The embedded broker: kombu's filesystem transport, made safe for a reader that is faster than a writer.

kombu writes a message into a file that is visible from its first byte on, and a worker that reads an unfinished one
dies of it. Here a message appears whole, by a rename, and is taken by a rename, so that one worker gets it.
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

#: The scheme of a broker URL that means this transport.
SCHEME = "spool"
#: How long somebody looks for a message in one go, in seconds. Between two goes a worker sees whether it is to end.
PATIENCE = 0.1


class Channel(filesystem.Channel):
    """Messages as files, a folder for each queue; their names sort by time."""

    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        target = Path(self.data_folder_out) / queue / f"{time.time_ns():020d}_{uuid.uuid4().hex}.msg"
        draft = target.with_suffix(".draft")
        draft.parent.mkdir(mode=0o700, exist_ok=True)
        draft.write_text(dumps(payload), encoding="utf-8")
        draft.rename(target)

    def _get(self, queue: str) -> Any:
        for path in self._waiting(queue):
            if text := _taken(path):
                return loads(text)
        raise Empty

    def _size(self, queue: str) -> int:
        return len(self._waiting(queue))

    def _purge(self, queue: str) -> int:
        return sum(_taken(path) is not None for path in self._waiting(queue))

    def _waiting(self, queue: str) -> list[Path]:
        """Return the messages of a queue, the oldest first."""
        folder = Path(self.data_folder_in) / queue
        try:
            return [folder / name for name in sorted(os.listdir(folder)) if name.endswith(".msg")]
        except FileNotFoundError:
            return []


class Transport(filesystem.Transport):
    """The transport to name in a broker URL."""

    Channel = Channel
    driver_name = SCHEME

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Deliver a message; raise `TimeoutError` soon if there is none, however long one would wait for it."""
        super().drain_events(connection, timeout=None if timeout is None else min(timeout, PATIENCE))


def _taken(path: Path) -> str | None:
    """Take a message out of the folder; None if another worker was faster."""
    claimed = path.with_suffix(f".{os.getpid()}.taken")
    try:
        path.rename(claimed)
        text = claimed.read_text(encoding="utf-8")
        claimed.unlink()
    except FileNotFoundError:
        return None
    return text


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
