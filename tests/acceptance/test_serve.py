"""`serve()` and the command line with real processes: a script becomes a site, and the terminal drives it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openvibe_site import ports
from tests.acceptance import script
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED, ROOT, Site

OPENVIBE = (sys.executable, "-m", "openvibe")
NEIGHBOUR = """
from openvibe import node, operator, workflow

@operator(id="{id}", name="A neighbour")
class Neighbour:
    word: str = ""

    @workflow(id="tell", inputs=())
    class Tell:
        @node
        def say(self, state):
            return {{"word": "{word}"}}
"""
MORE = """
operators:
  - id: written
    fields: {word: str}
    workflows:
      - id: say
        nodes:
          - {id: word, type: llm, model: haiku, system: Be short., user: Say hello!}
"""
GUARDED = """
from pathlib import Path

from neighbour import Neighbour
from openvibe import serve

if __name__ == "__main__":
    serve(Neighbour, port={port}, config_path="more.yaml")
    Path("after").write_text("served")
"""


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A new project as `openvibe init` writes it, served by `openvibe serve` beside a shipped operator."""
    folder = tmp_path_factory.mktemp("served") / "my letters"
    port = ports.free()
    environ = script.checkout(OPENVIBE_PORT=str(port))
    made = script.run([*OPENVIBE, "init", str(folder)], environ=environ, folder=ROOT)
    assert made.returncode == 0, made.stderr
    command = ("-m", "openvibe", "serve", "--modules", "./letters.py,operators.catalog")
    only = ("--operators", "letters,company_intel")
    with script.serving(*command, *only, folder=folder, port=port, environ=environ) as served:
        yield served


def openvibe(site: Site, *arguments: str, status: int = 0) -> str:
    """Run the command in the site's folder and return what it printed."""
    done = script.run([*OPENVIBE, *arguments], environ=dict(site.environment), folder=site.home.parent)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stdout + done.stderr


@pytest.mark.timeout(240)
def test_a_command_serves_the_operators_that_it_names_and_no_others(letters: Site) -> None:
    operators = letters.call("GET", "/operators").json()["operators"]
    assert sorted(operator["id"] for operator in operators) == ["company_intel", "letters"]
    assert openvibe(letters, "summary", "--url", letters.url).startswith("2 operators, ")


@pytest.mark.timeout(240)
def test_a_run_is_started_and_followed_to_its_end(letters: Site) -> None:
    said = openvibe(letters, "run", "company_intel", "research", "--sample", "--wait")
    run_id, _, rest = said.partition("\n")
    told, _, output = rest.partition("\n{")
    events = letters.events(f"/operators/company_intel/runs/{run_id}")
    assert len(told.splitlines()) == len(events)
    assert told.splitlines()[-1].endswith("✔ completed")
    assert json.loads("{" + output)["report"]
    assert run_id in openvibe(letters, "runs", "company_intel", "--status", "completed")


@pytest.mark.timeout(240)
def test_a_tail_shows_a_gate_that_the_terminal_then_decides(letters: Site) -> None:
    run_id = openvibe(letters, "run", "letters", "welcome", "--input", "name=Ada").strip()
    tail = subprocess.Popen(
        [*OPENVIBE, "tail", run_id],
        cwd=letters.home.parent,
        env=dict(letters.environment),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        letters.wait_for(f"/operators/letters/runs/{run_id}", "waiting", *ENDED)
        assert run_id in openvibe(letters, "runs", "--status", "waiting")
        said = openvibe(letters, "approve", run_id, "--notes", "Short", "--set", "letter=Hi, Ada!")
        assert said.startswith("Send this letter?\n")
        told, _ = tail.communicate(timeout=60)
    finally:
        tail.kill()
    assert tail.returncode == 0
    assert f"openvibe approve {run_id}" in told
    assert "review: approve by admin: Short" in told
    assert "To Ada: Hi, Ada!" in told
    assert "is completed" in openvibe(letters, "approve", run_id, status=1)


@pytest.mark.timeout(240)
def test_a_rejected_run_is_told_as_failed(letters: Site) -> None:
    run_id = openvibe(letters, "run", "letters", "welcome", "--json", '{"name": "Bo"}').strip()
    letters.wait_for(f"/operators/letters/runs/{run_id}", "waiting", *ENDED)
    assert "reject at review" in openvibe(letters, "reject", run_id, "--notes", "Too cold")
    assert "Too cold" in openvibe(letters, "tail", run_id, status=1)


@pytest.mark.timeout(240)
def test_a_wrong_start_is_refused_by_the_server_in_one_sentence(letters: Site) -> None:
    said = openvibe(letters, "run", "letters", "welcome", "--input", "nobody=Ada", status=1)
    assert said.startswith("openvibe: ")
    assert "name" in said
    assert said.count("\n") == 1


@pytest.mark.timeout(240)
def test_a_guarded_script_serves_a_class_that_it_imports_and_goes_on_when_it_has_served(tmp_path: Path) -> None:
    port = ports.free()
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR.format(id="neighbour", word="here"))
    (tmp_path / "more.yaml").write_text(MORE)
    # A name that one of OpenVibe's own packages bears.
    (tmp_path / "operators.py").write_text(GUARDED.format(port=port))
    with script.serving("operators.py", folder=tmp_path, port=port, environ=script.checkout()) as site:
        run = site.start_run("neighbour", "tell", {})
        assert site.wait_for(run, *ENDED)["output"]["word"] == "here"
        assert site.wait_for(site.start_run("written", "say", {}), *ENDED)["output"]["word"]
        second = script.run([sys.executable, "operators.py"], environ=script.checkout(), folder=tmp_path)
        assert second.returncode == 1
        assert "OpenVibe already runs from " in second.stderr
        assert not (tmp_path / "after").exists()
        site.process.send_signal(signal.SIGINT)
        assert site.process.wait(40) == 0
        assert script.living(site) == []
        assert (tmp_path / "after").read_text() == "served"


@pytest.mark.timeout(240)
def test_a_change_is_served_and_a_mistake_leaves_what_runs(tmp_path: Path) -> None:
    port = ports.free()
    code = tmp_path / "hot.py"
    code.write_text(NEIGHBOUR.format(id="hot", word="before"))
    command = ("-m", "openvibe", "serve", "--modules", "hot", "--port", str(port), "--reload")
    with script.serving(*command, folder=tmp_path, port=port, environ=script.checkout()) as site:
        code.write_text(NEIGHBOUR.format(id="hot", word="after").replace('id="tell"', 'id="say"'))
        sites.until(lambda: "ready again" in script.said(site), "the change is served", seconds=60)
        (operator,) = site.call("GET", "/operators").json()["operators"]
        assert operator["workflows"] == ["say"]
        assert site.wait_for(site.start_run("hot", "say", {}), *ENDED)["output"]["word"] == "after"
        crew = {name: site.child(name) for name in ("worker-1", "web", "bridge")}
        code.write_text("def broken(:\n")
        sites.until(lambda: "what ran before goes on" in script.said(site), "the mistake is told", seconds=60)
        assert "SyntaxError: invalid syntax (hot.py, line 1)" in script.said(site)
        assert {name: site.child(name) for name in crew} == crew
        assert site.wait_for(site.start_run("hot", "say", {}), *ENDED)["output"]["word"] == "after"


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("serve(Neighbour, port=99999)", 2, "OPENVIBE_PORT is '99999': set it to a whole number from 1 to 65535"),
        ("serve(Neighbour, Neighbour)", 1, "an operator with id 'neighbour' is registered already"),
        ("exec('class Wrong: pass'); serve(Wrong)", 1, "Wrong is no operator; decorate it with @operator"),
        (
            "import threading\nt = threading.Thread(target=serve, args=(Neighbour,))\nt.start(); t.join()",
            0,
            "main thread",
        ),
    ],
)
def test_a_script_that_cannot_be_served_says_why(tmp_path: Path, code: str, status: int, told: str) -> None:
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR.format(id="neighbour", word=""))
    (tmp_path / "main.py").write_text(f"from neighbour import Neighbour\nfrom openvibe import serve\n{code}\n")
    done = script.run([sys.executable, "main.py"], environ=script.checkout(), folder=tmp_path)
    assert done.returncode == status, done.stderr
    assert told in done.stderr


def test_a_child_that_happens_to_read_a_script_serves_nothing(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        NEIGHBOUR.format(id="n", word="") + "\nfrom openvibe import serve\nserve(Neighbour)"
    )
    done = script.run([sys.executable, "main.py"], environ=script.checkout(OPENVIBE_CHILD="web"), folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / ".openvibe").exists()


def test_an_operator_of_no_file_is_refused(tmp_path: Path) -> None:
    code = NEIGHBOUR.format(id="nowhere", word="") + "\nfrom openvibe import serve\nserve(Neighbour)\n"
    done = script.run([sys.executable, "-c", code], environ=script.checkout(), folder=tmp_path)
    assert done.returncode == 1
    assert "Neighbour stands in no file that workers could read: save it as hello.py" in done.stderr
