"""Callers with tokens, and runs at the places where calls begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from openvibe.bus.memory import MemoryBus
from operators.link import link
from operators.models import ApiToken, Project
from operators.services import announcements, execution, streams
from tests.api.readers import STREAM, Reading, key


@pytest.fixture(autouse=True)
def _quiet(db: None) -> Iterator[None]:
    """No server is asked, and the announcer is done before the database is emptied."""
    link.use(MemoryBus())
    yield
    assert announcements.settle(20)
    link.use(None)


def caller(user: User, project: Project) -> Client:
    """Return a program that comes with this user's token for this project."""
    key = ApiToken.new_key()
    ApiToken.objects.create(key_sha256=ApiToken.fingerprint(key), name="test", project=project, user=user)
    return Client(headers={"Authorization": f"Bearer {key}"})


@pytest.fixture
def alice_calls(alice: User, project: Project, registered: Any) -> Client:
    return caller(alice, project)


@pytest.fixture
def bob_calls(bob: User, project: Project, registered: Any) -> Client:
    return caller(bob, project)


@pytest.fixture
def vera_calls(vera: User, project: Project, registered: Any) -> Client:
    return caller(vera, project)


@pytest.fixture
def charlie_calls(charlie: User, other_project: Project) -> Client:
    return caller(charlie, other_project)


@pytest.fixture
def activate(alice_calls: Client) -> Callable[..., str]:
    """Start a run as Alice and return its id; with `play`, also play it as a worker would."""

    def activated(operator: str = "revenue_ops", trigger: str = "lead_qualified", *, play: bool = True) -> str:
        workflows = alice_calls.get(f"/v1/operators/{operator}").json()["workflows"]
        [sample] = [item["sample_input"] for item in workflows if trigger in (item["trigger_id"], item["id"])]
        body = {"trigger": trigger, "input": sample}
        answer = alice_calls.post(f"/v1/operators/{operator}/activate", body, content_type="application/json")
        assert answer.status_code == 201, answer.content
        run_id: str = answer.json()["run_id"]
        if play:
            execution.perform(run_id)
        return run_id

    return activated


@pytest.fixture
def waiting(activate: Callable[..., str]) -> str:
    """The address of a run that waits at its gate."""
    return f"/v1/operators/revenue_ops/runs/{activate()}"


@pytest.fixture
async def bus() -> MemoryBus:
    """A bus on the loop of the test, in the place of the process's own."""
    made = MemoryBus()
    await made.connect()
    link.use(made)
    return made


@pytest.fixture
async def read(bus: MemoryBus):
    """Open streams that are left with the test."""
    opened: list[Reading] = []

    async def reading(user: User, path: str = STREAM, *, last: int | None = None, **query: Any) -> Reading:
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        reader = Reading(await key(user), path, query, headers)
        reader.headers = await reader.open()
        opened.append(reader)
        return reader

    yield reading
    for reader in opened:
        if not reader.app.future.done():
            await reader.leave()
    assert streams.hub._watches == {}
