"""Every example in the documents is run, and does what is said of it."""

from __future__ import annotations

import os
import re
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
from tests.acceptance import site as sites
from tests.acceptance.site import Site
from tests.docs import documents
from tests.docs.documents import ALL, DOCS, README, ROOT, Block

WITH_SCRIPTS = [README, DOCS / "operators.md"]


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_example_stands_untried(path: Path) -> None:
    assert [block.code for block in documents.blocks(path) if block.language == "python" and not block.mark] == []


@pytest.mark.parametrize("path", WITH_SCRIPTS, ids=lambda path: path.name)
def test_a_script_prints_what_the_document_says(path: Path, tmp_path: Path) -> None:
    assert documents.save_modules(path, tmp_path)
    blocks = documents.blocks(path)
    (position,) = [number for number, block in enumerate(blocks) if block.mark == "script"]
    shown = next(block for block in blocks[position:] if block.language == "text")
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-W", "error", "-c", blocks[position].code]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown.code


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
        documents.quoted(row[0])[0]: set(documents.quoted(row[2]))
        for row in documents.rows(documents.section(DOCS / "api.md", "Event kinds"))
    }
    events = Event.objects.filter(channel__startswith="t_")
    assert len({event.kind for event in events}) >= 10
    for event in events:
        # `usage` has parts of its own, and a step that asked nobody has none.
        told = set(event.data) | set(event.data.get("usage", {}))
        said = {word for word in table[event.kind] if re.fullmatch(r"[a-z0-9_]+", word)}
        assert told <= said, event.kind
        if not event.kind.startswith("step."):
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
    (block,) = [block for block in _site_blocks() if block.language == "sh"]
    said = _played(["sh", "-eu", "-c", _at(site, block.code)], tmp_path)
    status, last_seq, refusal = said.splitlines()
    assert status == "ready"
    assert int(last_seq) > 10
    assert refusal.endswith("has ended already: completed")


@pytest.mark.timeout(240)
def test_an_agents_post_reaches_the_general_channel_as_the_readme_says(site: Site, tmp_path: Path) -> None:
    (block,) = [block for block in _site_blocks() if block.language == "python"]
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


def _site_blocks() -> list[Block]:
    return [block for block in documents.blocks(README) if block.mark == "site"]


def _at(site: Site, code: str) -> str:
    """Return an example as somebody types it whose OpenVibe has another home and port."""
    for ours, theirs in (("http://127.0.0.1:8000", site.url), (".openvibe/", f"{site.home}/")):
        code = code.replace(ours, theirs)
    return code


def _played(command: list[str], folder: Path) -> str:
    environ = {**os.environ, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
