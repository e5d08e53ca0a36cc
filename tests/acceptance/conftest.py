"""Sites for acceptance tests: one to share, and some of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import site as sites
from tests.acceptance.site import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One OpenVibe for all tests that break nothing."""
    with sites.running(tmp_path_factory.mktemp("site"), OPENVIBE_SIMULATED_PACE="60") as shared:
        yield shared


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """An OpenVibe that a test may break. Its model is slow enough to be caught in the middle of a step."""
    with sites.running(tmp_path / "home", OPENVIBE_SIMULATED_PACE="25") as own:
        yield own
