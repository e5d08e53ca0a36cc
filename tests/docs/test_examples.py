"""Every example in the documents is run, and does what is said of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from django.contrib.auth.models import User

from openvibe.bus.memory import MemoryBus
from operators import definitions
from operators.link import link
from operators.models import Event, Project, Run
from operators.services import announcements, compiled, execution, intake, registration, waits
from tests.acceptance import script
from tests.acceptance import site as sites
from tests.acceptance.site import Site
from tests.docs import documents
from tests.docs.documents import ALL, DOCS, README, ROOT, Block

#: Blocks of these languages never stand there untried.
TRIED = ("python", "yaml", "markdown")
#: Every script, by document and position.
SCRIPTS = [
    pytest.param(path, block, text, id=f"{path.name}-{number}")
    for path in ALL
    for number, (block, text) in enumerate(documents.shown(path, "script"), start=1)
]
#: Commands that need no server.
COMMANDS = [
    pytest.param(path, block, text, id=f"{path.name}-{number}")
    for path in ALL
    for number, (block, text) in enumerate(documents.shown(path, "command"), start=1)
]


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_example_stands_untried(path: Path) -> None:
    blocks = [block for block in documents.blocks(path) if block.language in TRIED]
    assert [block.code for block in blocks if not block.mark] == []
    known = ("module", "file", "script", "command", "site")
    assert [block.mark for block in documents.blocks(path) if block.mark and block.mark.split()[0] not in known] == []


@pytest.mark.parametrize(("path", "block", "text"), SCRIPTS)
def test_a_script_prints_what_the_document_says(path: Path, block: Block, text: str, tmp_path: Path) -> None:
    documents.save_modules(path, tmp_path)
    assert _played([sys.executable, "-W", "error", "-c", block.code], tmp_path, PYTHONPATH=_path(tmp_path)) == text


@pytest.mark.parametrize(("path", "block", "text"), COMMANDS)
def test_a_command_prints_what_the_document_says(path: Path, block: Block, text: str, tmp_path: Path) -> None:
    documents.save_modules(path, tmp_path)
    said = _played(["sh", "-eu", "-c", block.code], tmp_path, **_with_command(tmp_path))
    assert [line.rstrip() for line in said.splitlines()] == text.splitlines()


def test_the_ten_lines_of_the_readme_are_those_that_the_acceptance_tests_serve() -> None:
    (block,) = [block for block in documents.blocks(README) if block.mark == "module hello"]
    assert block.code == script.HELLO.read_text("utf-8")


@pytest.mark.parametrize(
    ("path", "name", "results"),
    [
        (README, "letters", {"outbox"}),
        (DOCS / "operators.md", "invoices", {"entry"}),
        (DOCS / "operators.md", "leads", {"told", "route"}),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_a_documented_operator_is_registered_and_played_to_its_result(
    path: Path,
    name: str,
    results: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    project: Project,
    alice: User,
    quiet: None,
) -> None:
    assert name in documents.save_modules(path, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (cls,) = __import__(name).OPERATORS
    operator = registration.register(project, definitions.registry.register(cls))
    try:
        workflow = operator.workflows.get()
        run = intake.request(workflow, input=workflow.sample_input, actor=alice)
        execution.perform(run.id)
        for gate in run.waits.select_related("run"):
            waits.answer(gate, waits.Answer("approve"), actor=alice)
            execution.perform(run.id)
        run.refresh_from_db()
    finally:
        definitions.registry.remove(operator.slug)
        compiled.workflow.cache_clear()
        sys.modules.pop(name)
    assert run.status == Run.Status.COMPLETED, run.error
    assert results <= {field for field, value in run.output.items() if value}


def test_the_data_of_events_is_what_the_table_says(
    project: Project, alice: User, registered: dict[str, object], quiet: None
) -> None:
    workflow = registered["revenue_ops"].workflows.get(slug="engagement")  # type: ignore[attr-defined]
    for decision in ("approve", "reject", ""):
        run = intake.request(workflow, input=workflow.sample_input, actor=alice)
        execution.perform(run.id)
        if decision:
            waits.answer(run.waits.select_related("run").get(), waits.Answer(decision), actor=alice)
            execution.perform(run.id)
        else:
            intake.cancel(run, actor=alice)
    table = {
        kind: set(documents.quoted(row[2]))
        for row in documents.rows(documents.section(DOCS / "api.md", "Event kinds"))
        for kind in documents.quoted(row[0])
    }
    events = Event.objects.filter(channel__startswith="t_")
    assert len({event.kind for event in events}) >= 10
    for event in events:
        # `usage` has parts of its own, and a step that asked nobody has none.
        told = set(event.data) | set(event.data.get("usage", {}))
        said = {word for word in table[event.kind] if re.fullmatch(r"[a-z0-9_]+", word)}
        assert told <= said, event.kind
        if not event.kind.startswith(("step.", "run.failed", "log")):
            assert told == said, event.kind


@pytest.fixture
def quiet(db: None) -> Iterator[None]:
    """No server is asked, and the announcer is done before the database is emptied."""
    link.use(MemoryBus())
    yield
    assert announcements.settle(20)
    link.use(None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An OpenVibe that serves the README's operator beside the shipped ones."""
    folder = tmp_path_factory.mktemp("readme")
    names = ",".join(["operators.catalog", *documents.save_modules(README, folder)])
    path = f"{folder}{os.pathsep}{ROOT}"
    with sites.running(folder / "home", OPENVIBE_OPERATORS=names, OPENVIBE_SIMULATED_PACE="0", PYTHONPATH=path) as own:
        yield own


@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: use the system's own means.")
def test_the_first_run_by_rest_goes_as_the_readme_says(site: Site, tmp_path: Path) -> None:
    block = _site_block(README, "sh", "/resume")
    said = _played(["sh", "-eu", "-c", _at(site, block.code)], tmp_path)
    status, last_seq, refusal = said.splitlines()
    assert status == "ready"
    assert int(last_seq) > 10
    assert refusal.endswith("has ended already: completed")


@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: use the system's own means.")
def test_the_ten_lines_are_started_as_the_readme_says(site: Site, tmp_path: Path) -> None:
    block = _site_block(README, "sh", "hello/activate")
    started = json.loads(_played(["sh", "-eu", "-c", _at(site, block.code)], tmp_path))
    run = site.wait_for(f"/operators/hello/runs/{started['run_id']}", *sites.ENDED)
    assert run["output"]["greeting"]
    page = httpx.get(
        f"{site.url}/agents/{started['run_id']}/", headers={"Cookie": site.session()}, trust_env=False, timeout=10
    )
    assert page.status_code == 200


@pytest.mark.timeout(240)
def test_the_command_starts_follows_and_decides_as_its_document_says(site: Site, tmp_path: Path) -> None:
    block = _site_block(DOCS / "cli.md", "sh", "openvibe approve")
    environ = _with_command(tmp_path, OPENVIBE_HOME=str(site.home), OPENVIBE_PORT=str(site.port))
    said = _played(["sh", "-eu", "-c", block.code], tmp_path, **environ)
    assert said.count("✔ completed") == 2
    assert "approve by admin: Reads well" in said


@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: use the system's own means.")
def test_a_webhook_that_comes_twice_starts_one_run_as_its_document_says(site: Site, tmp_path: Path) -> None:
    block = _site_block(DOCS / "integrations.md", "sh", "webhooks/hubspot")
    said = _played(["sh", "-eu", "-c", _at(site, block.code)], tmp_path)
    first, second = (json.loads(f"{part}]}}")["runs"] for part in said.split("]}")[:2])
    assert [(run["workflow_id"], run["new"]) for run in first] == [("lead_qualification", True)]
    assert second == [{**first[0], "new": False}]


@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: use the system's own means.")
def test_the_doors_of_the_api_answer_as_their_document_says(site: Site, tmp_path: Path) -> None:
    path = DOCS / "api.md"
    documents.save_modules(path, tmp_path)
    ((block, text),) = documents.shown(path, "site")
    assert _played(["sh", "-eu", "-c", _at(site, block.code)], tmp_path) == text


@pytest.mark.timeout(240)
def test_an_approver_on_the_bus_decides_as_its_document_says(site: Site, tmp_path: Path) -> None:
    block = _site_block(DOCS / "protocol.md", "python", "approval.granted")
    run = site.start_run("letters", "welcome")
    site.wait_for(run, "waiting", *sites.ENDED)
    said = _played([sys.executable, "-c", _at(site, block.code), run.rpartition("/")[2]], tmp_path)
    assert said == "Send this letter? ['approve', 'reject']\n"
    (gate,) = site.wait_for(run, *sites.ENDED)["waits"]
    assert (gate["decision"], gate["decider"]) == ("approve", "Eve")


@pytest.mark.timeout(240)
def test_an_agent_without_a_client_is_heard_as_the_document_of_the_command_says(site: Site, tmp_path: Path) -> None:
    block = _site_block(DOCS / "cli.md", "sh", "openvibe publish")
    environ = _with_command(tmp_path, OPENVIBE_HOME=str(site.home), OPENVIBE_PORT=str(site.port))
    assert "The build is green" in _played(["sh", "-eu", "-c", block.code], tmp_path, **environ)


@pytest.mark.timeout(240)
def test_an_agents_post_reaches_the_general_channel_as_the_readme_says(site: Site, tmp_path: Path) -> None:
    block = _site_block(README, "python", "scout")
    for _ in range(2):
        _played([sys.executable, "-c", _at(site, block.code)], tmp_path)
    cookies = {"Cookie": site.session()}

    def shown() -> str:
        page = httpx.get(f"{site.url}/agents/general/", headers=cookies, trust_env=False, timeout=10).text
        return page if "<strong>scout</strong>" in page else ""

    assert sites.until(shown, "the post is on the general page").count("Hello from") == 1


@pytest.mark.timeout(240)
def test_the_readmes_operator_is_served_beside_the_shipped_ones(site: Site) -> None:
    run = site.start_run("letters", "welcome")
    site.wait_for(run, "waiting", *sites.ENDED)
    assert site.call("POST", f"{run}/resume", {"decision": "approve"}).status_code == 200
    assert site.wait_for(run, *sites.ENDED)["output"]["outbox"][0].startswith("To Ada: ")


def _site_block(path: Path, language: str, words: str) -> Block:
    """Return the document's one block for a site that holds these words."""
    blocks = [block for block in documents.blocks(path) if (block.mark, block.language) == ("site", language)]
    (found,) = [block for block in blocks if words in block.code]
    return found


def _at(site: Site, code: str) -> str:
    """Return an example as somebody types it whose OpenVibe has another home and port."""
    for ours, theirs in (("http://127.0.0.1:8000", site.url), (".openvibe/", f"{site.home}/")):
        code = code.replace(ours, theirs)
    return code


def _path(folder: Path) -> str:
    return f"{folder}{os.pathsep}{ROOT}"


def _with_command(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment that has the command `openvibe`, installed or not, and nothing to say about a server."""
    place = folder / "bin" / "openvibe"
    place.parent.mkdir(exist_ok=True)
    place.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m openvibe "$@"\n')
    place.chmod(0o755)
    path = f"{place.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": _path(folder), "COLUMNS": "120", **more}


def _played(command: list[str], folder: Path, **environ: str) -> str:
    proxy = {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        command, cwd=folder, env=script.environment(**proxy, **environ), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
