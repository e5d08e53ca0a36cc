"""Notices that somebody has changed the operators' files: looked at now and then, since that works on every disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from openvibe import sources

#: What definitions are written in. Texts count in a folder of prompts only: nodes may write some of their own.
CODE = frozenset({".py", ".yaml", ".yml"})
TEXTS = frozenset({".md", ".txt"})
PROMPTS = "prompts"
#: How deep below a lone file's folder prompts and neighbours may lie; a package is looked at whole.
DEPTH = 2
#: A folder with more files than this belongs to more than the operators.
MOST = 5_000
SKIPPED = frozenset({"__pycache__", "node_modules", "tests"})

Seen = dict[Path, tuple[int, int]]


class Watch:
    """The files behind these modules and files, as they were when somebody last asked; nothing in `home` counts."""

    def __init__(self, names: Sequence[str], *, home: Path) -> None:
        self._names = names
        self._home = home
        self._seen = self._look()
        self._moving: Seen | None = None

    def changed(self) -> list[Path]:
        """What was changed, made or removed since the last answer; nothing while somebody still writes."""
        now = self._look()
        if now == self._seen:
            self._moving = None
            return []
        if now != self._moving:
            self._moving = now
            return []
        before, self._seen, self._moving = self._seen, now, None
        return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))

    def _look(self) -> Seen:
        seen: Seen = {}
        for name in self._names:
            for path in _files(sources.location(name), home=self._home):
                try:
                    status = path.stat()
                except OSError:
                    continue
                seen[path] = (status.st_mtime_ns, status.st_size)
        return seen


def _files(place: Path | None, *, home: Path) -> Iterator[Path]:
    if place is None:
        return
    lone = not place.is_dir()
    folder = place.parent if lone else place
    count = 0
    for root, folders, names in os.walk(folder):
        below = Path(root).relative_to(folder).parts
        wanted = [name for name in folders if not name.startswith(".") and name not in SKIPPED]
        folders[:] = [name for name in wanted if Path(root, name) != home] if not lone or len(below) < DEPTH else []
        suffixes = CODE | TEXTS if PROMPTS in below else CODE
        for name in names:
            if os.path.splitext(name)[1] in suffixes:
                yield Path(root, name)
                count += 1
                if count >= MOST:
                    return
