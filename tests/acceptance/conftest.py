"""Sites for acceptance tests: one to share, and some of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.acceptance import site as sites
from tests.acceptance.chromium import CHROMIUM, FLAGS
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of one module."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose console must stay clean."""
    context = browser.new_context()
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    # What a restarted server cut is no fault of the page.
    assert not [fault for fault in faults if "WebSocket" not in fault and "net::ERR_CONNECTION" not in fault]
