"""A fresh stage for each test, with no service connected."""

import pytest

from tests.catalog.stage import Stage

SERVICES = ("HUBSPOT_TOKEN", "HUBSPOT_BASE_URL", "SMTP_HOST", "SLACK_BOT_TOKEN", "SLACK_BASE_URL")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name in SERVICES:
        monkeypatch.delenv(name, raising=False)
    return Stage()
