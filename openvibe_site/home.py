"""What lies in OPENVIBE_HOME, and the lock that lets one supervisor at a time use it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openvibe_site.env import Environment
from openvibe_site.errors import CannotStart


@dataclass(frozen=True)
class Home:
    """The folder's map: every path that more than one module needs has its name here."""

    root: Path

    @property
    def queue(self) -> Path:
        return self.root / "queue"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def nats(self) -> Path:
        return self.root / "nats"

    @property
    def nats_url(self) -> Path:
        return self.root / "nats.url"

    @property
    def children(self) -> Path:
        return self.root / "children.json"

    @property
    def lock(self) -> Path:
        return self.root / "run.lock"

    @property
    def secret_key(self) -> Path:
        return self.root / "secret_key"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def signin(self) -> Path:
        return self.root / "signin"

    def make(self) -> None:
        """Makes what is missing and leaves the rest as it is."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.queue, self.logs, self.nats):
                folder.mkdir(mode=0o700, exist_ok=True)
            kept_secret(self.secret_key)
        except OSError as error:
            raise CannotStart(
                f"{self.root} cannot be used ({error.strerror}): set OPENVIBE_HOME to a folder that you may write to."
            ) from error

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the lock, which the kernel frees when its holder dies in whatever way."""
        try:
            lock = self.lock.open("a+", encoding="ascii")
        except OSError as error:
            raise CannotStart(f"{self.lock} cannot be written ({error.strerror}): mend its rights.") from error
        with lock as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise CannotStart(
                    f"OpenVibe already runs from {self.root} (pid {file.read().strip() or 'unknown'}). "
                    "Stop it, or choose another OPENVIBE_HOME and OPENVIBE_PORT."
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield


def secret_key(environment: Environment) -> str:
    """The one that is set, else the home's own, so that every process of this home signs alike."""
    if environment.secret_key:
        return environment.secret_key
    home = Home(environment.home)
    home.make()
    return kept_secret(home.secret_key)


def kept_secret(path: Path) -> str:
    """The random secret in this file, made at the first call; of two first callers both get the same one."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="ascii").strip()
    draft = _draft(path, secrets.token_urlsafe(48))
    try:
        # A link, unlike a rename, does not replace what another process was first to write.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return path.read_text(encoding="ascii").strip()


def write_private(path: Path, content: str) -> None:
    """Replaces the file at once, so that a reader sees the old content or the new, and nobody else sees either."""
    _draft(path, content).replace(path)


def _draft(path: Path, content: str) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(content + "\n")
    return draft
