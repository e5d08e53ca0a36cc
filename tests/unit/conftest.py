"""A home, and children that run in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openvibe_site import crew
from openvibe_site.children import Child
from openvibe_site.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def child(home: Home, said: list[str]) -> Iterator[Callable[..., Child]]:
    made: list[Child] = []

    def make(*command: str, name: str = "worker-1", mark: str = "worker-1") -> Child:
        environ = {**os.environ, "OPENVIBE_HOME": str(home.root), crew.MARK: mark}
        log = home.logs / f"{name}.log"
        made.append(Child(name, command, environ=environ, folder=home.root, log=log, say=said.append))
        return made[-1]

    yield make
    for each in made:
        each.kill()
