"""Browsers of the cast, and runs at the places where pages show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client

from openvibe.bus.memory import MemoryBus
from openvibe.registry import define
from operators import definitions
from operators.link import link
from operators.models import Emission, Operator, Project, Run, Wait, Workflow
from operators.services import announcements, compiled, deliveries, execution, intake, registration
from operators.services.waits import Answer, answer
from tests.domain.village import Baker, Crossroads, Grocer, accidents, orders
from tests.pages.visitors import Visitors

Browse = Callable[[User], Client]


@pytest.fixture(autouse=True)
def _quiet(db: None) -> Iterator[None]:
    """No server is asked, and the announcer is done before the database is emptied."""
    link.use(MemoryBus())
    yield
    assert announcements.settle(20)
    link.use(None)


@pytest.fixture
def browse() -> Browse:
    """Open a browser in which somebody is signed in."""

    def opened(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return opened


@pytest.fixture
def engagement(registered: dict[str, Operator]) -> Workflow:
    return registered["revenue_ops"].workflows.select_related("operator").get(slug="engagement")


@pytest.fixture
def research(registered: dict[str, Operator]) -> Workflow:
    return registered["company_intel"].workflows.select_related("operator").get(slug="research")


@pytest.fixture
def queued(research: Workflow, alice: User) -> Run:
    return intake.request(research, input=research.sample_input, actor=alice)


@pytest.fixture
def completed(queued: Run) -> Run:
    return played(queued)


@pytest.fixture
def waiting(engagement: Workflow, alice: User) -> Run:
    return played(intake.request(engagement, input=engagement.sample_input, actor=alice))


@pytest.fixture
def gate(waiting: Run) -> Wait:
    return waiting.waits.get()


@pytest.fixture
def rejected(gate: Wait, alice: User) -> Run:
    answer(gate, Answer("reject", notes="Too pushy"), actor=alice)
    return played(gate.run)


@pytest.fixture
def village(project: Project) -> Iterator[dict[str, Operator]]:
    """Operators that talk to each other, sleep, ask agents, and bring graphs of their own."""
    made = [define(cls) for cls in (Baker, Grocer, Crossroads, Visitors)]
    try:
        for item in made:
            definitions.registry.add(item)
        yield {item.spec.id: registration.register(project, item) for item in made}
    finally:
        for item in made:
            definitions.registry.remove(item.spec.id)
        compiled.workflow.cache_clear()
        orders.clear()
        accidents.clear()


def begun(operator: Operator, workflow: str, **input: object) -> Run:
    """Start a workflow and play its run as far as it goes."""
    found = operator.workflows.select_related("operator").get(slug=workflow)
    return played(intake.request(found, input=input, actor=None, trigger="api"))


def delivered() -> None:
    """Start what listens to the events that were emitted."""
    for emission in Emission.objects.filter(delivered_at=None):
        deliveries.deliver(emission.id)


def played(run: Run) -> Run:
    """Play a run as a worker does, and read it again."""
    execution.perform(run.id)
    return Run.objects.get(id=run.id)


def quoted(gate: Wait, **more: str) -> dict[str, str]:
    """What the page of an open gate sends."""
    return {"version": str(gate.version), "payload_sha256": gate.payload_sha256, **more}


def edited(gate: Wait, **changes: str) -> dict[str, str]:
    """The editors' fields as the page shows them, with changes by their names."""
    fields = {
        f"values.personalized_sequence.{index}.{name}": str(value)
        for index, touch in enumerate(gate.payload["personalized_sequence"])
        for name, value in touch.items()
    }
    return {**fields, **{name.replace("__", "."): value for name, value in changes.items()}}


def place(gate: Wait) -> str:
    """The gate's address."""
    return f"/agents/{gate.run_id}/gates/{gate.id}/"
