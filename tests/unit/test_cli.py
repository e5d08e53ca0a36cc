# long: one command after the other, each with its sentences
"""The command line: what it prints, what it asks a server for, and the sentence when something is wrong."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openvibe.cli import arguments
from openvibe.cli.main import main
from openvibe.errors import SetupError
from openvibe_site import ports
from openvibe_site.env import CODE_ROOT

OPERATORS = """
from openvibe import human_in_the_loop, node, operator, workflow

@operator(id="mail", name="Mail [bold]room", description="Sends letters.")
class Mail:
    text: str = ""
    copies: int = 1

    @workflow(id="post", trigger="cron:0 9 * * 1", sample_input={"text": "Hi"})
    class Post:
        \"\"\"Post a letter.\"\"\"
        @human_in_the_loop(prompt="Post it?")
        def review(self, state): ...
        @node
        def send(self, state): ...

    @workflow(id="reply", listens=("crm.lead_won", "crm.lead_lost"), capability="reply")
    class Reply:
        @node
        def answer(self, state): ...

@operator(id="cellar", name="Cellar")
class Cellar:
    bottles: int = 0

    @workflow(id="count", trigger="request:bottles")
    class Count:
        @node
        def look(self, state): ...
"""
RUN = "/v1/operators/mail/runs/run_1"
MOMENT = "2026-03-01T09:00:00+00:00"
COMMANDS = (
    "serve", "list", "info", "summary", "run", "runs", "tail", "approve", "reject", "publish", "soak", "init",
)  # fmt: skip
#: Path → status and body.
Answers = dict[str, tuple[int, Any]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with operators of its own, in an environment that says nothing."""
    for name in [name for name in os.environ if name.startswith("OPENVIBE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "mail.py").write_text(OPERATORS)
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Callable[[Answers], list[tuple[str, Any]]]]:
    """A server that gives these answers and keeps what it was asked."""
    asked: list[tuple[str, Any]] = []
    started: list[http.server.HTTPServer] = []

    def start(answers: Answers) -> list[tuple[str, Any]]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(size)) if size else None
                asked.append((self.path, body))
                assert self.headers["Authorization"] == "Bearer secret"
                missing = (404, {"detail": f"There is no {self.path}"})
                status, answer = answers.get(self.path, answers.get(self.path.partition("?")[0], missing))
                if isinstance(answer, list):
                    answer = answer.pop(0) if answer[1:] else answer[0]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

            do_POST = do_GET

            def log_message(self, *_: Any) -> None: ...

        started.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=started[-1].serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("OPENVIBE_URL", f"http://127.0.0.1:{started[-1].server_port}/")
        monkeypatch.setenv("OPENVIBE_TOKEN", "secret")
        return asked

    yield start
    for each in started:
        each.shutdown()
        each.server_close()


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n    {name} " not in text] == []


@pytest.mark.parametrize(("name", "modules"), [
    ("serve", "operators.catalog and operators.coders"),
    *((name, "operators.catalog: a server has operators.coders beside it") for name in ("list", "info", "summary")),
])  # fmt: skip
def test_the_help_names_what_is_read_without_modules(
    capsys: pytest.CaptureFixture[str], name: str, modules: str
) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert f"else $OPENVIBE_OPERATORS, else {modules})" in " ".join(capsys.readouterr().out.split())


def test_the_summary_counts_and_tells_what_else_starts_a_workflow(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", "--modules", "./mail.py"]) == 0
    assert capsys.readouterr().out == (
        "2 operators, 3 workflows, 3 triggers, 4 nodes\n2 subscriptions, 2 capabilities\n"
    )


def test_only_the_chosen_operators_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "--modules", "./mail.py", "--operators", "cellar"]) == 0
    assert capsys.readouterr().out.startswith("1 operator, 1 workflow, 1 trigger, 1 node\n")


def test_the_modules_come_from_the_environment_unless_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENVIBE_OPERATORS", "./mail.py")
    assert main(["list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["mail", "post", "cron:0", "9", "*", "*", "1", "2"] in rows
    assert ["reply", "on_demand", "1"] in rows
    assert ["cellar", "count", "request:bottles", "1"] in rows


def test_an_operator_is_described_as_it_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "mail", "--modules", "./mail.py"]) == 0
    text = capsys.readouterr().out
    assert "Mail [bold]room (mail)\nSends letters." in text
    assert "  nodes   review (gate) → send\n" in text
    assert '  sample  {"text": "Hi"}\n' in text
    assert "  listens crm.lead_won\n  listens crm.lead_lost\n  answers reply\n" in text


def test_a_server_is_summarised_by_its_address(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    workflow = {"id": "post", "nodes": [{"id": "send", "kind": "logic"}] * 3}
    server({
        "/v1/operators": (200, {"operators": [{"id": "mail"}]}),
        "/v1/operators/mail": (200, {"id": "mail", "workflows": [workflow]}),
    })  # fmt: skip
    assert main(["summary", "--url", os.environ["OPENVIBE_URL"]]) == 0
    assert capsys.readouterr().out == "1 operator, 1 workflow, 1 trigger, 3 nodes\n"


@pytest.mark.parametrize(
    ("command", "status", "told"),
    [
        (["info", "nobody", "--modules", "./mail.py"], 2, "There is no operator 'nobody'; there is: mail, cellar."),
        (["list", "--modules", "./gone.py"], 2, "cannot be imported: FileNotFoundError: there is no such file"),
        (
            ["summary", "--operators", "x", "--modules", "./mail.py"],
            2,
            "There is no operator 'x' in ./mail.py; there is",
        ),
        (["runs", "--url", "localhost:1"], 2, "'localhost:1' is no address: set --url or OPENVIBE_URL to one such as"),
        (["runs"], 2, "There is no token in "),
        (["runs", "--url", "http://x:y"], 2, "'http://x:y' is no address: set --url or OPENVIBE_URL to one such as"),
        (["runs", "--url", "http://a..b"], 2, "'http://a..b' is no address"),
        (["init", "."], 2, ". is not empty: name a folder that is, or one that does not exist yet."),
    ],
)
def test_a_wrong_wish_is_one_sentence_and_2(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str], status: int, told: str
) -> None:
    assert main(command) == status
    _is_one_sentence(capsys, told)


@pytest.mark.parametrize(
    "command",
    [
        ["run", "mail", "post", "--input", "text=\udcff"],
        ["runs", "\udcff"],
        ["tail", "mail/\udcff"],
        ["reject", "run_1", "--notes", "\udcff"],
        ["soak", "--branch", "\udcff"],
        ["publish", "--general", "--attr", "branch=\udcff"],
        ["publish", "--general", "--nats", "\udcff"],
        ["init", "\udcff"],
    ],
)
def test_bytes_that_are_no_text_are_one_sentence_and_2(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main(command) == 2
    _is_one_sentence(capsys, r"\udcff' is no text: it must be UTF-8.")


def test_an_environment_that_is_no_text_is_told_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENT_ID", "\udcff")
    assert main(["publish", "--general"]) == 2
    _is_one_sentence(capsys, r"'\udcff' is no text: it must be UTF-8.")


def test_a_token_that_is_none_is_one_sentence_and_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "token").write_bytes(b"\xff")
    monkeypatch.setenv("OPENVIBE_HOME", str(folder))
    assert main(["runs"]) == 2
    _is_one_sentence(capsys, "token holds no token: ")
    monkeypatch.setenv("OPENVIBE_TOKEN", "schlüssel")
    assert main(["runs"]) == 2
    _is_one_sentence(capsys, "OPENVIBE_TOKEN holds no token: ")


def test_a_folder_of_any_name_and_a_file_in_it_may_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "\udcff").mkdir()
    (folder / "\udcff" / "post.py").write_text(OPERATORS)
    assert main(["summary", "--modules", "./\udcff/post.py"]) == 0
    assert "2 operators" in capsys.readouterr().out


def test_a_server_that_is_not_there_is_one_sentence_and_1(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENVIBE_TOKEN", "secret")
    monkeypatch.setenv("OPENVIBE_PORT", str(port := ports.free()))
    assert main(["runs"]) == 1
    _is_one_sentence(capsys, f"Nobody answers at http://127.0.0.1:{port} (")


@pytest.mark.parametrize(
    ("status", "body", "ended", "told"),
    [
        (401, {"detail": "no"}, 2, "does not take the token: set OPENVIBE_TOKEN, or OPENVIBE_HOME to its home."),
        (404, {"detail": "There is no operator 'x'"}, 1, "There is no operator 'x'"),
        (422, {"detail": "Misfit", "errors": [{"field": "f", "message": "is required"}]}, 1, "Misfit (f: is required)"),
        (502, b"<html>", 1, "answers 502 and no JSON; is it an OpenVibe?"),
    ],
)
def test_a_refusal_is_the_servers_own_sentence(
    server: Any, capsys: pytest.CaptureFixture[str], status: int, body: Any, ended: int, told: str
) -> None:
    server({"/v1/operators/mail/runs": (status, body)})
    assert main(["runs", "mail"]) == ended
    _is_one_sentence(capsys, told)


def test_a_run_starts_with_values_in_the_types_of_its_fields(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    schema = {"properties": {"text": {"type": "string"}, "copies": {"type": "integer"}}}
    workflow = {"id": "post", "trigger_id": "post", "input_schema": schema, "sample_input": {"text": "Hi", "tag": "a"}}
    asked = server({
        "/v1/operators/mail": (200, {"id": "mail", "workflows": [workflow]}),
        "/v1/operators/mail/activate": (201, {"run_id": "run_1"}),
    })  # fmt: skip
    given = ["--sample", "--json", '{"copies": 1, "urgent": true}', "--input", "copies=3", "--input", "text=12=x"]
    assert main(["run", "mail", "post", *given]) == 0
    assert capsys.readouterr().out == "run_1\n"
    wanted = {"text": "12=x", "copies": 3, "urgent": True, "tag": "a"}
    assert asked[-1] == ("/v1/operators/mail/activate", {"trigger": "post", "input": wanted})
    assert main(["run", "mail", "nothing"]) == 2
    _is_one_sentence(capsys, "Operator 'mail' has no workflow 'nothing'; it has: post.")


@pytest.mark.parametrize(
    ("pairs", "text", "told"),
    [(["x"], "", "'x' is no name=value"), ([], "[1]", "must be an object"), ([], "{", "no JSON")],
)
def test_values_that_are_none_are_refused(pairs: list[str], text: str, told: str) -> None:
    options = arguments.argparse.Namespace(pairs=pairs, json=text)
    with pytest.raises(SetupError, match=told):
        arguments.values(options, schema={})


def test_a_decision_quotes_the_gate_that_was_shown(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked = server({
        "/v1/operators": (200, {"operators": [{"id": "cellar"}, {"id": "mail"}]}),
        RUN: (200, _run("waiting", [_gate("one"), _gate("two"), _gate("old", status="resolved")])),
        f"{RUN}/resume": (200, {"status": "queued"}),
    })  # fmt: skip
    assert main(["approve", "run_1"]) == 2
    _is_one_sentence(capsys, "Several gates are open; name one with --gate: one, two.")
    assert main(["reject", "mail/run_1", "--gate", "old"]) == 1
    _is_one_sentence(capsys, "Run run_1 has no open gate 'old'; it is waiting.")
    assert main(["approve", "run_1", "--gate", "two", "--notes", "Fine", "--set", "copies=2"]) == 0
    quote = {"wait_id": "wait_two", "version": 1, "payload_sha256": "f00"}
    assert asked[-1] == (
        f"{RUN}/resume",
        {"decision": "approve", "notes": "Fine", **quote, "values": {"copies": 2}},
    )
    assert capsys.readouterr().out == 'Post it?\n{"text": "Hi"}\napprove at two; the run is queued\n'
    assert main(["reject", "run_1", "--gate", "one"]) == 0
    assert asked[-1][1]["decision"] == "reject"


def test_a_run_that_is_not_there_is_told_by_its_id(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server({"/v1/operators": (200, {"operators": [{"id": "cellar"}, {"id": "mail"}]})})
    assert main(["tail", "run_9"]) == 1
    _is_one_sentence(capsys, "There is no run 'run_9' at http://127.0.0.1:")


def test_what_agents_said_is_asked_for_by_what_it_is_about(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"type": "agent.status", "data": {"content": "red"}, "run_id": "", "actor": "ann", "timestamp": MOMENT}
    asked = server({"/api/agents/events": (200, b"data: %s\n\n: alive\n\n" % json.dumps(said).encode())})
    about = ("--repository", "house", "--issue", "7", "--branch", "main")
    assert main(["soak", "--last", "2", "--kind", "status", *about]) == 0
    assert capsys.readouterr().out.endswith(" ann [status] red\n")
    [(path, _)] = asked
    wanted = "channel=general&limit=2&kind=status&repository=house&issue=7&branch=main"
    assert path == f"/api/agents/events?{wanted}"


def test_what_agents_said_may_hold_any_sign(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told = "one\u2028two\x85three\x1cfour"
    said = {"type": "agent.status", "data": {"content": told}, "run_id": "", "actor": "ann", "timestamp": MOMENT}
    server({"/api/agents/events": (200, b"data: %s\n\n: alive\n\n" % json.dumps(said, ensure_ascii=False).encode())})
    assert main(["soak", "--last", "2"]) == 0
    shown = told.replace("\x85", r"\u0085").replace("\x1c", r"\u001c")
    assert capsys.readouterr().out.endswith(f" ann [status] {shown}\n")


def test_no_line_of_what_agents_said_looks_like_somebody_elses(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told = "done\n2026-11-30 10:00:00 bob [status] all is well"
    said = {"type": "agent.status", "data": {"content": told}, "run_id": "", "actor": "ann", "timestamp": MOMENT}
    server({"/api/agents/events": (200, b"data: %s\n\n: alive\n\n" % json.dumps(said).encode())})
    assert main(["soak", "--last", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(" ann [status] done")
    assert second == "    2026-11-30 10:00:00 bob [status] all is well"


def test_what_strangers_wrote_moves_no_terminal(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told, shown = "\x1b[2J\x9b1m\r\x07\x7fü🦉\tb", r"\u001b[2J\u009b1m\u000d\u0007\u007fü🦉"
    said = {"type": "agent.status", "data": {"content": told}, "run_id": "", "actor": "\x1bann", "timestamp": MOMENT}
    gate = _gate("review") | {"prompt": told, "payload": {"text": told}}
    workflow = {"id": "post", "description": told, "trigger": "on_demand", "nodes": [], "sample_input": {"text": told}}
    server({
        "/api/agents/events": (200, b"data: %s\n\n: alive\n\n" % json.dumps(said).encode()),
        "/v1/operators": (200, {"operators": [{"id": "mail"}]}),
        "/v1/operators/mail": (200, {"id": "mail", "name": told, "description": told, "workflows": [workflow]}),
        RUN: (200, _run("completed", output={"text": told})),
        f"{RUN}/events": (200, [{"events": [_event(1, "log", "send", message=told, page=told)]}, {"events": []}]),
        "/v1/operators/mail/runs/run_2": (200, _run("waiting", [gate])),
        "/v1/operators/mail/runs/run_2/resume": (409, {"detail": told}),
    })  # fmt: skip
    address = os.environ["OPENVIBE_URL"]
    commands = (["soak"], ["list", "--url", address], ["info", "mail", "--url", address], ["tail", "mail/run_1"])
    for command in (*commands, ["approve", "mail/run_2"]):
        main(command)
        printed = "".join(capsys.readouterr())
        assert shown in printed or command[0] == "list"
        assert not [sign for sign in printed if sign not in "\n\t" and unicodedata.category(sign) == "Cc"]


def test_more_than_a_server_tells_is_refused_and_so_is_what_the_server_refuses(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = server({"/api/agents/events": (422, {"detail": "kind: 'Red' is no kind of event"})})
    assert main(["soak", "--last", "1001"]) == 2
    _is_one_sentence(capsys, "--last is 1001; a server tells 1 to 1000")
    assert asked == []
    assert main(["soak", "--kind", "Red"]) == 1
    _is_one_sentence(capsys, "'Red' is no kind of event")


def test_the_tail_tells_each_event_once_and_ends_with_the_run(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [
        [_event(1, "run.queued"), _event(2, "run.started")],
        [],
        [_event(3, "log", "send", message="[red]wet[/red] ink", page=1)],
        [],
        # Told after the look at the run that has ended.
        [_event(4, "run.completed")],
        [],
    ]
    runs = [_run("running"), _run("completed", output={"text": "Hi"})]
    asked = server({f"{RUN}/events": (200, [{"events": page} for page in pages]), RUN: (200, [runs[0], *runs])})
    assert main(["tail", "mail/run_1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines[:4]] == [
        "queued",
        "started",
        'send: [red]wet[/red] ink {"page": 1}',
        "completed",
    ]
    assert json.loads("".join(lines[4:])) == {"text": "Hi"}
    after = [path.partition("after=")[2].partition("&")[0] for path, _ in asked if "/events" in path]
    assert after == ["0", "2", "2", "3", "3", "4"]


def test_the_tail_of_a_failed_run_ends_with_1(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failed = _event(1, "run.failed", message="No ink", node="send")
    server({f"{RUN}/events": (200, [{"events": [failed]}, {"events": []}, {"events": []}]), RUN: (200, _run("failed"))})
    assert main(["tail", "mail/run_1"]) == 1
    assert "✘ send failed: No ink" in capsys.readouterr().out


def test_a_gate_shows_its_prompt_and_what_to_type(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gate = _event(1, "gate.opened", "review", prompt="Post it?", decisions=["approve", "reject"], payload={"a": 1})
    end = _event(2, "run.cancelled", actor="ada", reason="")
    pages = [{"events": [gate, end]}, {"events": []}, {"events": []}]
    server({f"{RUN}/events": (200, pages), RUN: (200, _run("cancelled"))})
    assert main(["tail", "mail/run_1"]) == 1
    text = capsys.readouterr().out
    assert "? review waits for a decision (approve, reject): Post it?" in text
    assert "openvibe approve run_1   or   openvibe reject run_1" in text


def test_a_new_project_runs_its_test_and_offers_its_operator(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "new/letters project"]) == 0
    new = folder / "new" / "letters project"
    written = sorted(str(path.relative_to(new)) for path in new.rglob("*") if path.is_file())
    assert written == [".gitignore", "README.md", "letters.py", "pytest.ini", "tests/test_letters.py"]
    assert (new / "README.md").read_text().startswith("# letters project\n")
    # A project of somebody else has none of the plug-ins of this one.
    environ = {**os.environ, "PYTHONPATH": str(CODE_ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error"]
    done = subprocess.run(command, cwd=new, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert main(["summary", "--modules", str(new / "letters.py")]) == 0
    assert "1 operator, 1 workflow, 1 trigger, 3 nodes" in capsys.readouterr().out


def test_a_folder_whose_name_is_no_text_holds_a_new_project_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "\udcff").mkdir()
    monkeypatch.chdir(folder / "\udcff")
    assert main(["init", "."]) == 0
    assert Path("README.md").read_text().startswith("# ?")


def test_a_full_folder_is_left_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(folder)]) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["mail.py"]


def test_wrong_arguments_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "mail"])
    assert ended.value.code == 2
    assert "the following arguments are required: workflow" in capsys.readouterr().err


def _is_one_sentence(capsys: pytest.CaptureFixture[str], told: str) -> None:
    error = capsys.readouterr().err
    assert error.startswith("openvibe: ")
    assert told in error
    assert error.count("\n") == 1


def _event(seq: int, kind: str, name: str = "", /, *, actor: str = "", **data: Any) -> dict[str, Any]:
    moment = f"2026-11-20T12:00:{seq:02d}.5Z"
    return {"seq": seq, "type": kind, "node": name, "actor": actor, "data": data, "timestamp": moment}


def _run(status: str, waits: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    return {"run_id": "run_1", "status": status, "waits": waits or [], **more}


def _gate(node: str, *, status: str = "pending") -> dict[str, Any]:
    values = {"properties": {"copies": {"type": "integer"}}}
    return {
        "id": f"wait_{node}",
        "kind": "approval",
        "status": status,
        "node": node,
        "version": 1,
        "payload_sha256": "f00",
        "prompt": "Post it?",
        "payload": {"text": "Hi"},
        "schema": {"properties": {"values": values}},
    }
