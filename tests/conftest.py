"""What every test stands on: a home of its own, and the cast.

Alice owns the project, Bob operates it, Vera looks on; Charlie owns another project and must see nothing of this one.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

HOME = Path(tempfile.mkdtemp(prefix="openvibe-tests-"))
# pytest-django reads settings that an ini file names before this file runs; so they are named here, after the home.
os.environ["OPENVIBE_HOME"] = str(HOME)
os.environ["OPENVIBE_LLM"] = "simulated"
os.environ.pop("CELERY_BROKER_URL", None)
os.environ["OPENVIBE_SIMULATED_PACE"] = "0"
os.environ["DJANGO_SETTINGS_MODULE"] = "openvibe_site.settings"

import django

# What a test leaves is collected soon, as Python does, and not by the site's rule in the midst of what comes later.
COLLECT_AT = gc.get_threshold()
django.setup()
gc.set_threshold(*COLLECT_AT)
# Whom this process starts, such as pytest's other workers, would read settings by this name before naming a home.
del os.environ["DJANGO_SETTINGS_MODULE"]

import orjson
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections

from operators.models import Membership, Operator, Project
from operators.services import registration


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files of few and long tests come first: one that begins last would keep all other cores waiting for its end.
    items.sort(key=lambda item: not _is_long(item.path))


def _is_long(path: Path) -> bool:
    return path.parent.name in ("acceptance", "faults") or path.name == "test_on_postgresql.py"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    # The summary reads source, at which Python 3.11 fails if a finalizer that is told of does so meanwhile (gh-106905).
    gc.collect()


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    # A file, as in production: SQLite's shared memory databases refuse a second writer instead of letting it wait.
    chosen = connections["default"].settings_dict
    if chosen["ENGINE"].endswith("sqlite3"):
        chosen["TEST"]["NAME"] = str(HOME / "tests.db")


@pytest.fixture
def bells() -> Iterator[Callable[[], list[tuple[str, str, str]]]]:
    """Read the bells that hang in the embedded queue: queue, task and id; and take them out."""

    def read() -> list[tuple[str, str, str]]:
        found = []
        for file in sorted((settings.OPENVIBE.home / "queue").glob("*/*.msg"), key=lambda file: file.name):
            headers = orjson.loads(file.read_bytes())["headers"]
            found.append((file.parent.name, headers["task"], headers["argsrepr"].strip("[]'")))
            file.unlink()
        return found

    read()
    yield read
    read()


@pytest.fixture
def project(db: None) -> Project:
    return Project.objects.create(id="default", name="Default")


@pytest.fixture
def other_project(db: None) -> Project:
    return Project.objects.create(id="other", name="Other")


@pytest.fixture
def alice(project: Project) -> User:
    return _member("alice", project, Membership.Role.OWNER)


@pytest.fixture
def bob(project: Project) -> User:
    return _member("bob", project, Membership.Role.OPERATOR)


@pytest.fixture
def vera(project: Project) -> User:
    return _member("vera", project, Membership.Role.VIEWER)


@pytest.fixture
def charlie(other_project: Project) -> User:
    return _member("charlie", other_project, Membership.Role.OWNER)


@pytest.fixture
def registered(project: Project) -> dict[str, Operator]:
    """The operators of the project, by id."""
    return {operator.slug: operator for operator in registration.register_all(project)}


def _member(name: str, project: Project, role: str) -> User:
    user = User.objects.create_user(name)
    Membership.objects.create(project=project, user=user, role=role)
    return user
