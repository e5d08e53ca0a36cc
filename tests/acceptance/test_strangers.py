"""Agents written against the subjects alone, in Python and in JavaScript, one for each dialect: a browser sees them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from openvibe.protocol.workflow import run_id
from tests.acceptance import chromium
from tests.acceptance import site as sites
from tests.acceptance.chromium import sign_in
from tests.acceptance.site import ENDED, ROOT, Site, until
from tests.acceptance.test_agents import AGENTS, agent, keeps

pytestmark = chromium.NEEDED

HERE = Path(__file__).parent
STRANGERS = HERE / "strangers"
Language = str
LANGUAGES = ("python", "javascript")
SOON = 30_000


@pytest.fixture(scope="module")
def inn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that receives strangers, and has errands for them."""
    sources = ",".join(str(HERE / name) for name in ("hosts.py", "errands.py"))
    with sites.running(tmp_path_factory.mktemp("inn"), OPENVIBE_OPERATORS=sources) as running:
        until(lambda: keeps(running), "the streams are there")
        yield running


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs in JavaScript, and the packages that they need."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        absent = "node and npm are not installed: agents in JavaScript cannot be tried."
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    folder = tmp_path_factory.mktemp("javascript")
    for file in (*STRANGERS.glob("*.mjs"), *AGENTS.glob("*.mjs"), *AGENTS.glob("package*.json")):
        shutil.copy(file, folder)
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def command(program: str, language: Language, request: pytest.FixtureRequest) -> list[str]:
    """Return how a program is started; the packages of JavaScript are there only if they are needed."""
    if language == "python":
        found = next(folder / f"{program}.py" for folder in (STRANGERS, AGENTS) if (folder / f"{program}.py").exists())
        return [sys.executable, str(found)]
    return ["node", str(request.getfixturevalue("packages") / f"{program}.mjs")]


def played(site: Site, started: list[str], **told: str) -> str:
    """Run an agent's program to its end, with nothing but NATS's address, and return what it printed."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    done = subprocess.run(
        started, cwd=ROOT / "tests", env={**kept, "NATS_URL": site.nats_url, **told},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_strangers_operator_is_asked_watched_and_answered(
    inn: Site,
    page: Page,
    language: Language,
    request: pytest.FixtureRequest,
) -> None:
    sign_in(page, inn)
    page.goto(f"{inn.url}/agents/general/")
    expect(page.locator("#live-state")).to_contain_text("Live", timeout=SOON)
    guest, operator = f"guest-{language}", f"{language}_stranger"
    program = command("openvibe_agent", language, request)
    printed = played(inn, program, GUEST=guest, AGENT_ID=f"inn-of-{language}", OPERATOR=operator)
    assert f"completed: {guest} is rated 84" in printed
    # Its event stands on the general channel, and has started the run that asked it.
    expect(page.locator("#timeline")).to_contain_text("arrived", timeout=SOON)
    page.goto(f"{inn.url}/agents/?operator=hosts&trigger=event")
    page.locator("#runs a.run-row", has_text=re.compile(language, re.IGNORECASE)).first.click()
    expect(page.locator("#run-head")).to_contain_text("Completed", timeout=SOON, ignore_case=True)
    expect(page.locator("#timeline")).to_contain_text(f"Welcome, {guest}")
    expect(page.locator("#timeline")).to_contain_text(f"leads/{guest}/score")
    expect(page.locator("#timeline")).to_contain_text("84")
    # What it has said of itself is in the registry.
    page.goto(f"{inn.url}/agents/servers/")
    card = page.locator(".server", has_text=f"inn-of-{language}")
    expect(card).to_contain_text("greeting", timeout=SOON)
    expect(card).to_contain_text("2 runs")


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_agent_of_an_external_runtime_has_a_run_and_speaks_to_everybody(
    inn: Site,
    page: Page,
    language: Language,
    request: pytest.FixtureRequest,
) -> None:
    sign_in(page, inn)
    page.goto(f"{inn.url}/agents/general/")
    expect(page.locator("#live-state")).to_contain_text("Live", timeout=SOON)
    uid, name = f"uid-{language}", f"coder-{language}"
    played(inn, command("workflow_agent", language, request), UID_OF_RUN=uid, AGENT_ID=name)
    expect(page.locator("#timeline")).to_contain_text(f"{name} works on {uid}", timeout=SOON)
    run = run_id("default", uid)
    until(lambda: inn.read(f"/operators/external_agents/runs/{run}").get("status") == "completed", "the run has ended")
    page.goto(f"{inn.url}/agents/{run}/")
    expect(page.locator("#timeline")).to_contain_text("I read the issue")
    expect(page.locator("#timeline strong", has_text="read")).to_be_visible()
    expect(page.locator("#timeline")).to_contain_text("grep")
    expect(page.locator("#run-head")).to_contain_text("Completed", ignore_case=True)


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_agent_that_takes_work_is_seen_at_it(
    inn: Site,
    page: Page,
    language: Language,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    sign_in(page, inn)
    run = inn.start_run("errands", "run_errand", {"wish": f"paint the {language} door"})
    inn.wait_for(run, "waiting")
    page.goto(f"{inn.url}/agents/{run.rsplit('/', 1)[-1]}/")
    expect(page.locator("#live-state")).to_contain_text("Live", timeout=SOON)
    with agent(inn, *command("sample_agent", language, request), folder=tmp_path, name=f"painter-{language}"):
        assert inn.wait_for(run, *ENDED)["status"] == "completed"
        # Without a reload.
        expect(page.locator("#timeline")).to_contain_text("I take c1", timeout=SOON)
        expect(page.locator("#timeline")).to_contain_text(f"painter-{language}")
        expect(page.locator("#run-head")).to_contain_text("Completed", timeout=SOON, ignore_case=True)
        expect(page.locator("main")).to_contain_text(f"Done: paint the {language} door")


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_agent_takes_a_turn_of_its_own_about_anothers_end(
    inn: Site,
    page: Page,
    language: Language,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    sign_in(page, inn)
    name = f"reviewer-of-{language}"
    with agent(inn, *command("cg_agent", language, request), folder=tmp_path, name=name):
        path = inn.start_run("errands", "run_errand", {"wish": f"rest in {language}"})
        inn.wait_for(path, "waiting")
        assert inn.call("DELETE", path).is_success
        reviewed = path.rsplit("/", 1)[-1]
        # Its turn is an external run, whose page begins with the agent's first word.
        run = run_id("default", f"{name}-{reviewed}-0")
        until(lambda: inn.read(f"/operators/external_agents/runs/{run}").get("status") == "completed", "it has ended")
    page.goto(f"{inn.url}/agents/{run}/")
    expect(page.locator("#timeline")).to_contain_text(f"I look at {reviewed}-0")
    expect(page.locator("#timeline")).to_contain_text("errands ended with canceled")
    expect(page.locator("#run-head")).to_contain_text("Completed", ignore_case=True)


def test_strangers_know_nothing_of_openvibe() -> None:
    programs = sorted(STRANGERS.iterdir())
    assert len(programs) == 5
    for program in programs:
        assert not re.search(r"^\s*(import|from)\s+openvibe", program.read_text("utf-8"), re.MULTILINE), program
    assert json.loads((AGENTS / "package.json").read_text("utf-8"))["dependencies"].keys() >= {
        "@nats-io/transport-node"
    }
