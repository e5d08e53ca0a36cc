"""A few thousand messages of four agents while the bridge is killed twice. `make faults` sends a hundred thousand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults import flood

pytestmark = pytest.mark.timeout(400)

MESSAGES = int(os.environ.get("OPENVIBE_TEST_MESSAGES", "3000"))


def test_every_good_message_is_one_event_and_every_bad_one_a_letter_on_sqlite(tmp_path: Path) -> None:
    _flooded("embedded", tmp_path / "home")


@pytest.mark.postgres
def test_every_good_message_is_one_event_and_every_bad_one_a_letter_on_postgresql(tmp_path: Path) -> None:
    _flooded("grown", tmp_path / "home")


def _flooded(kind: flood.Kind, home: Path) -> None:
    report = flood.play(kind, home, messages=MESSAGES)
    assert report.kills == 2
    assert not report.violations, "\n".join(report.violations[:50])
