"""A worker full of threads that nobody can stop ends in order, and another one goes on with its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, until

pytestmark = pytest.mark.timeout(240)

OPERATORS = """
import time
from datetime import timedelta

from openvibe import node, operator, workflow


@operator(id="sleeper")
class Sleeper:
    steps: int = 0

    @workflow(id="stuck", inputs=())
    class Stuck:
        @node(timeout=timedelta(seconds=0.2))
        def sleep(self, state):
            time.sleep(600)

    @workflow(id="long", inputs=())
    class Long:
        @node
        def one(self, state):
            time.sleep(1.5)
            return {"steps": state["steps"] + 1}

        @node
        def two(self, state):
            time.sleep(1.5)
            return {"steps": state["steps"] + 1}

        @node
        def three(self, state):
            return {"steps": state["steps"] + 1}
"""


def test_a_worker_with_too_many_strays_hands_its_runs_back_and_is_started_again(tmp_path: Path) -> None:
    module = tmp_path / "sleeper.py"
    module.write_text(OPERATORS)
    with sites.running(tmp_path / "home", OPENVIBE_OPERATORS=str(module), OPENVIBE_MOST_STRAYS="2") as site:
        before = site.child("worker-1")
        first = site.wait_for(site.start_run("sleeper", "stuck", {}), *ENDED)
        assert first["error"]["kind"] == "StepTimeout"
        assert site.child("worker-1") == before

        long = site.start_run("sleeper", "long", {})
        until(lambda: _begun(site, long), "its first step has begun")
        stuck = site.start_run("sleeper", "stuck", {})

        assert site.wait_for(stuck, *ENDED)["error"]["kind"] == "StepTimeout"
        until(lambda: site.child("worker-1") != before, "the worker was started again", seconds=90)
        assert site.wait_for(long, *ENDED, seconds=90)["output"] == {"steps": 3}
        kinds = [event["type"] for event in site.events(long)]
        assert "run.handed_back" in kinds
        assert "run.lost" not in kinds
        assert site.wait_for(site.start_run("sleeper", "long", {}), *ENDED)["status"] == "completed"


def _begun(site: sites.Site, run: str) -> bool:
    return "step.started" in [event["type"] for event in site.events(run)]
