"""The real browser of the acceptance tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.site import Site

CHROMIUM = Path("/usr/bin/chromium")
#: Flags that keep Chromium from calling home; as root it has no sandbox.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

#: The marks of tests that need it.
NEEDED = [
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed: `make services` installs it."),
]


def sign_in(page: Page, site: Site) -> None:
    """Sign the administrator in by a one-click link."""
    page.goto(site.manage("signin"))
    expect(page).to_have_url(re.compile("/agents/operators/$"))
