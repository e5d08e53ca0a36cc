"""The lab, and runs at the places where tests begin."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from django.conf import settings
from django.contrib.auth.models import User

from openvibe.bus.memory import MemoryBus
from operators import definitions
from operators.link import link
from operators.models import Operator, Project, Run, Wait
from operators.services import announcements, compiled, intake, leases, registration
from tests.domain.lab import Act, Lab, meddling, played


@pytest.fixture(autouse=True)
def _quiet(db: None) -> Iterator[None]:
    """No server is asked, the announcer is done before the database is emptied, and no archive is left."""
    link.use(MemoryBus())
    yield
    meddling.clear()
    leases.stopping.clear()
    assert announcements.settle(20)
    link.use(None)
    shutil.rmtree(settings.OPENVIBE.home / "archive", ignore_errors=True)


@pytest.fixture
def lab(project: Project) -> Iterator[Operator]:
    definition = definitions.registry.register(Lab)
    yield registration.register(project, definition)
    definitions.registry.remove("lab")
    compiled.workflow.cache_clear()


@pytest.fixture
def while_playing() -> Callable[[Act], None]:
    """Say what happens in the middle of the lab's `meddled` workflow."""
    return meddling.append


@pytest.fixture
def engagement(registered: dict[str, Operator], alice: User) -> Run:
    """A queued run of the workflow with a gate."""
    workflow = registered["revenue_ops"].workflows.get(slug="engagement")
    return intake.request(workflow, input=workflow.sample_input, actor=alice)


@pytest.fixture
def gate(engagement: Run) -> Wait:
    """The open gate of such a run, with its run."""
    played(engagement)
    return Wait.objects.select_related("run").get(run=engagement)
