"""What `serve()` and `openvibe serve` reach by their entry point: the supervisor, told which operators to serve."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from openvibe.errors import SetupError
from openvibe_site import crew, supervisor


def serve(*, sources: Sequence[str], only: Sequence[str], port: int | None = None, reload: bool = False) -> int:
    """Serves until somebody ends it; returns the exit status.

    Without `sources` the environment names them. What is kept lies in the current folder unless the environment says
    otherwise. In a child of a supervisor nothing happens: it has registered what it was started for.
    """
    if crew.MARK in os.environ:
        return 0
    if threading.current_thread() is not threading.main_thread():
        raise SetupError("serve() must be called in the main thread, where Ctrl-C arrives")
    folder = Path.cwd()
    try:
        environ = _environ(os.environ, folder=folder, sources=sources, only=only)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    if port is not None:
        environ["OPENVIBE_PORT"] = str(port)
    if reload:
        environ["OPENVIBE_RELOAD"] = "true"
    return supervisor.main(environ, folder=folder)


def _environ(given: Mapping[str, str], *, folder: Path, sources: Sequence[str], only: Sequence[str]) -> dict[str, str]:
    if comma := [name for name in (*sources, *only) if "," in name]:
        raise SetupError(f"{comma[0]!r} has a comma in it, which parts names in OPENVIBE_OPERATORS: rename it.")
    environ = dict(given)
    environ["OPENVIBE_HOME"] = str(folder / Path(environ.get("OPENVIBE_HOME", "").strip() or ".openvibe").expanduser())
    if sources:
        environ["OPENVIBE_OPERATORS"] = ",".join(sources)
    if only:
        environ["OPENVIBE_ONLY"] = ",".join(only)
    return environ
