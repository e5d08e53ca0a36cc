"""Agents and a tool, written against the subjects alone in Python and in JavaScript: a browser sees them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import nats
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
    """Run an agent's program to its end, with NATS's address and what it is told, and return what it printed."""
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
    page.goto(f"{inn.url}/agents/{run_of(run)}/")
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
        reviewed = run_of(path)
        # Its turn is an external run, whose page begins with the agent's first word.
        run = run_id("default", f"{name}-{reviewed}-0")
        until(lambda: inn.read(f"/operators/external_agents/runs/{run}").get("status") == "completed", "it has ended")
    page.goto(f"{inn.url}/agents/{run}/")
    expect(page.locator("#timeline")).to_contain_text(f"I look at {reviewed}-0")
    expect(page.locator("#timeline")).to_contain_text("errands ended with canceled")
    expect(page.locator("#run-head")).to_contain_text("Completed", ignore_case=True)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_tool_of_an_agent_is_performed_by_a_stranger_who_answers_twice(
    inn: Site,
    page: Page,
    language: Language,
    request: pytest.FixtureRequest,
) -> None:
    program, before = command("tool_agent", language, request), unread(inn)
    sign_in(page, inn)
    run = inn.start_run("grocers", f"sell_by_scale_{language}", {"wish": f"flour for {language}"})
    [wait] = inn.wait_for(run, "waiting")["waits"]
    name, grams = f"weigher-{language}", wait["payload"]["arguments"]["grams"]
    page.goto(f"{inn.url}/agents/{run_of(run)}/")
    expect(page.locator("#live-state")).to_contain_text("Live", timeout=SOON)
    expect(page.locator("#run-head")).to_contain_text("Waiting", ignore_case=True)
    doors = {"REST_URL": inn.url, "REST_TOKEN": inn.token}
    printed = played(inn, program, AGENT_ID=name, TOOL=f"scale_{language}", **doors)
    assert printed.count(f"answered {wait['payload']['tool_call_id']}: {sum(grams)}") == 2
    # Without a reload.
    said = f"{name}: {sum(grams)} g"
    expect(page.locator("#timeline .call")).to_have_text(said, timeout=SOON)
    expect(page.locator("#run-head")).to_contain_text("Completed", timeout=SOON, ignore_case=True)
    call, *results = until(lambda: commanded(inn, run), "the bridge has read all commands")
    assert [subject.rpartition(".")[2] for subject, _ in (call, *results)] == ["call", "tool_result", "tool_result"]
    for _, headers in results:
        assert all(headers[key] == call[1][key] for key in ("traceparent", "CG-Recursion-Depth"))
    # The second answer stands nowhere, and not among what nobody could read.
    expect(page.locator("#timeline .decision")).to_have_text(f"{name} answered")
    expect(page.locator("#timeline .call")).to_have_text(said)
    kinds = [event["type"] for event in inn.events(run)]
    assert (kinds.count("tool.answered"), kinds.count("answer.refused"), kinds[-1]) == (1, 0, "run.completed")
    assert unread(inn) == before
    # What the tool said is part of what the turn delivered.
    cards = inn.call("GET", f"/boxes/{run_of(run)}-0-output").json()["cards"]
    delivered = [inn.call("GET", f"/cards/{card}").json()["content"] for card in cards]
    assert [card["result"] for card in delivered if "tool" in card] == [said]


def run_of(path: str) -> str:
    """Return a run's id."""
    return path.rsplit("/", 1)[-1]


def unread(site: Site) -> str:
    """Return the line of the metrics that counts dead letters."""
    told = httpx.get(f"{site.url}/metrics", timeout=15, trust_env=False).text
    return next(line for line in told.splitlines() if line.startswith("openvibe_dead_letters "))


def commanded(site: Site, run: str) -> list[tuple[str, dict[str, str]]]:
    """Return subject and headers of the commands about a run, in order; none before the bridge has read everything."""

    async def read() -> list[tuple[str, dict[str, str]]]:
        client = await nats.connect(site.nats_url)
        stream = client.jetstream()
        reader = await stream.consumer_info("cg_cmd_v1", "openvibe-bridge")
        kept = await stream.pull_subscribe(f"cg.v1.*.t_{run_of(run)}.cmd.>", None, stream="cg_cmd_v1")
        found = [(message.subject, message.headers or {}) for message in await kept.fetch(10, timeout=10)]
        await client.close()
        return [] if reader.num_pending or reader.num_ack_pending else found

    # On a thread of its own, because a browser test runs inside an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, read()).result(30)


def test_strangers_know_nothing_of_openvibe() -> None:
    programs = sorted(STRANGERS.iterdir())
    assert len(programs) == 7
    for program in programs:
        assert not re.search(r"^\s*(import|from)\s+openvibe", program.read_text("utf-8"), re.MULTILINE), program
    assert json.loads((AGENTS / "package.json").read_text("utf-8"))["dependencies"].keys() >= {
        "@nats-io/transport-node"
    }
