"""`serve()`: from a script with operators to the whole site that plays them.

The site is a plug-in: whatever package offers the entry point `serve` in the group `openvibe.site`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Protocol, cast

from openvibe import config, sources
from openvibe.errors import SetupError
from openvibe.registry import Registry

GROUP = "openvibe.site"
#: What a checkout has that nobody has installed: no package's metadata tells of it.
CHECKOUT = EntryPoint(name="serve", value="openvibe_site.serving:serve", group=GROUP)


class Site(Protocol):
    """What a site's entry point does: serve until somebody ends it, and return the exit status."""

    def __call__(
        self, *, sources: Sequence[str], only: Sequence[str], port: int | None = None, reload: bool = False
    ) -> int:
        """Serve the operators with the ids `only` (all, if there are none) of these modules and files."""


def serve(*operators: type, port: int | None = None, config_path: str = "") -> None:
    """Serve these operators with everything that OpenVibe has, and return when somebody has ended it.

    Pages, REST API, workers and message bus run as children of this process. `port` is that of the pages and the API
    on 127.0.0.1; without it `OPENVIBE_PORT` decides, else it is 8000. `config_path` names a YAML file whose operators
    are served as well. What is kept lies in `.openvibe/` of the current folder unless `OPENVIBE_HOME` names another.
    The children read the same script again: there, and wherever a script is read for its operators, `serve()` only
    registers them.

    Example:
        >>> serve(Hello, port=8000)

    Raises:
        SetupError: an operator is defined wrongly, or in no file that a child could read.
        SystemExit: the site could not start; what was in the way has been printed.
    """
    if sources.take(operators):
        return
    if not operators and not config_path:
        raise SetupError("serve() was given no operators; give it at least one class: serve(Hello)")
    registry = Registry()
    for cls in operators:
        registry.register(cls)
    for definition in config.load(config_path) if config_path else ():
        registry.add(definition, where=config_path)
    named = _sources(operators) + ([os.path.abspath(config_path)] if config_path else [])
    if status := site()(sources=named, only=[item.spec.id for item in registry], port=port):
        raise SystemExit(status)


def site() -> Site:
    """Return what starts the site.

    Raises:
        SetupError: no site is installed.
    """
    point = next(iter(entry_points(group=GROUP, name="serve")), CHECKOUT)
    try:
        return cast(Site, point.load())
    except ModuleNotFoundError as error:
        raise SetupError(f"The site is not installed ({error}): run `pip install openvibe`") from error


def _sources(operators: Sequence[type]) -> list[str]:
    """The script first, since it is what calls `serve()`; then the modules of classes that it imports."""
    script = _script(sys.modules["__main__"]) if operators else ""
    homeless = [cls.__name__ for cls in operators if cls.__module__ == "__main__" and not script]
    if homeless:
        raise SetupError(
            f"{homeless[0]} stands in no file that workers could read: save it as hello.py and run `python hello.py`"
        )
    modules = [cls.__module__ for cls in operators if cls.__module__ != "__main__"]
    return list(dict.fromkeys([script, *modules] if script else modules))


def _script(main: ModuleType) -> str:
    """The running program as a child can read it: a module's name after `python -m`, else a file's path."""
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return os.path.abspath(file) if file else ""
