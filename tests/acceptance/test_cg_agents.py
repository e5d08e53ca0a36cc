"""Agents of the dialect `cg` that know nothing of OpenVibe: they hear of a turn's end, and take a turn of their own."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from openvibe.protocol import workflow
from tests.acceptance.site import ENDED, Site, until
from tests.acceptance.test_agents import AGENTS, agent, run


def reviews(site: Site, name: str) -> None:
    """End a run and see the agent's turn about it, an external run that has ended with its task."""
    run_id = site.start_run("company_intel", "query").rpartition("/")[2]
    place = external(name, run_id)
    assert until(lambda: ended(site, place), f"{name} has reviewed {run_id}")["trigger"] == "external"
    told = [(event["type"], event["data"].get("content")) for event in site.events(place)]
    assert told == [
        ("run.started", None),
        ("agent.state", f"{name}-{run_id}-0: running"),
        ("agent.step", f"I look at {run_id}-0"),
        ("agent.step", "company_intel ended with success"),
        ("agent.task", "Reviewed"),
        ("run.completed", None),
    ]
    assert {event["actor"] for event in site.events(place)} == {name}
    delivered = site.events(place)[4]["data"]["payload"]["deliverable_card_id"]
    reviewed = site.read(f"/operators/company_intel/runs/{run_id}")
    assert site.call("GET", f"/cards/{delivered}").json()["content"] == reviewed["output"]
    assert site.call("GET", f"/boxes/{run_id}-0-output").json()["cards"] == [delivered]


def external(name: str, run_id: str) -> str:
    """Return the path of the external run that is an agent's turn about a run."""
    return f"/operators/external_agents/runs/{workflow.run_id('default', f'{name}-{run_id}-0')}"


def ended(site: Site, place: str) -> dict[str, Any] | None:
    answer = site.call("GET", place)
    return answer.json() if answer.status_code == 200 and answer.json()["status"] in ENDED else None


@pytest.mark.timeout(240)
def test_the_python_agent_of_the_documents_takes_a_turn(site: Site) -> None:
    with agent(site, sys.executable, str(AGENTS / "cg_agent.py"), folder=AGENTS, name="rita"):
        reviews(site, "rita")


@pytest.mark.timeout(300)
def test_the_javascript_agent_of_the_documents_takes_a_turn(site: Site, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        absent = "node and npm are not installed: the agent in JavaScript cannot be tried."
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    for name in ("cg_agent.mjs", "package.json", "package-lock.json"):
        shutil.copy(AGENTS / name, tmp_path)
    run([npm, "ci", "--no-audit", "--no-fund"], tmp_path)
    with agent(site, node, "cg_agent.mjs", folder=tmp_path, name="rosa"):
        reviews(site, "rosa")


def test_these_agents_are_short_and_know_nothing_of_openvibe() -> None:
    for name in ("cg_agent.py", "cg_agent.mjs"):
        text = (AGENTS / name).read_text("utf-8")
        assert len(text.splitlines()) < 80
        assert "import openvibe" not in text
        assert "from openvibe" not in text
