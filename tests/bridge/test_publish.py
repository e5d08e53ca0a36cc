"""`openvibe publish` as a runtime calls it: a process of its own, a real server, and what arrives of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import pytest

from openvibe.protocol import headers, workflow
from operators.models import Event, Run
from tests.bridge.conftest import SOON, Bridge, eventually, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

ROOT = Path(__file__).resolve().parents[2]
RUN = workflow.run_id("default", "uid-1")
NAMED = ("--run-uid", "uid-1", "--workflow-name", "fix", "--namespace", "lab", "--agent", "coder")


@contextmanager
def publishing(url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("WORKFLOW_", "AGENT_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "openvibe", "publish", *options],
        cwd=ROOT, env={**environ, "NATS_URL": url}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        yield process
        if process.poll() is None:
            process.kill()


def publish(url: str, text: str, *options: str) -> tuple[int, str]:
    with publishing(url, *options) as process:
        _, errors = process.communicate(text, timeout=2 * SOON)
    return process.returncode, errors


def test_lines_of_stdin_arrive_on_the_runs_thread(bridge: Bridge) -> None:
    status, errors = publish(bridge.server.url, "one\n\ntwo\nthree", *NAMED, "--attr", "branch=main")
    assert (status, errors) == (0, "")
    eventually(lambda: said(f"t_{RUN}") == ["one", "two", "three"])
    event = Event.objects.get(channel=f"t_{RUN}", seq=2)
    assert (event.actor, event.kind, event.data["attrs"]["branch"]) == ("coder", "agent.message", "main")
    assert said() == []


def test_all_lines_belong_to_one_trace_that_of_whoever_started_it_if_there_is_one(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(uid: str) -> set[tuple[str, str]]:
        assert publish(bridge.server.url, "one\ntwo\n", "--run-uid", uid, "--general")[0] == 0
        run = workflow.run_id("default", uid)
        eventually(lambda: said(f"t_{run}") == ["one", "two"])
        return asyncio.run(_traces(bridge.server.url, f"workflow.default.workflow.{uid}.agent.agent.message"))

    monkeypatch.delenv("TRACEPARENT", raising=False)
    [(own, _)] = told("uid-1")
    [(other, _)] = told("uid-2")
    assert headers.valid(own)
    assert own != other
    mine = headers.new_trace()
    monkeypatch.setenv("TRACEPARENT", mine)
    monkeypatch.setenv("TRACESTATE", "vendor=1")
    assert told("uid-3") == {(mine, "vendor=1")}
    assert Run.objects.get(id=workflow.run_id("default", "uid-3")).traceparent == mine


async def _traces(url: str, subject: str) -> set[tuple[str, str]]:
    """The traces of all messages that are kept, of this subject and of the general one that came with it."""
    client = await nats.connect(url)
    jetstream = client.jetstream()
    state = (await jetstream.stream_info("agent-comms")).state
    kept = [await jetstream.get_msg("agent-comms", seq) for seq in range(state.first_seq, state.last_seq + 1)]
    await client.close()
    found = [message for message in kept if message.subject == subject]
    beside = [kept[place + 1] for place, message in enumerate(kept[:-1]) if message in found]
    return {
        (told["traceparent"], told.get("tracestate", "")) for message in found + beside if (told := message.headers)
    }


def test_general_tells_everybody_too(bridge: Bridge) -> None:
    assert publish(bridge.server.url, "for all\n", *NAMED, "--general", "--kind", "status")[0] == 0
    assert publish(bridge.server.url, "from nowhere\n", "--general", "--agent", "bob")[0] == 0
    eventually(lambda: said() == ["for all", "from nowhere"])
    eventually(lambda: said(f"t_{RUN}") == ["for all"])
    assert list(Event.objects.filter(channel="public", kind__startswith="agent.").values_list("actor", flat=True)) == [
        "coder",
        "bob",
    ]


def test_a_kind_and_an_attribute_end_the_run(bridge: Bridge) -> None:
    done = ("--kind", "run-complete", "--attr", "exit_code=3")
    assert publish(bridge.server.url, "The tests are red\n", *NAMED, *done)[0] == 0
    eventually(lambda: Run.objects.filter(id=RUN, status="failed").exists())


def test_while_nats_is_away_lines_are_kept_and_it_says_so(bridge: Bridge) -> None:
    bridge.server.stop()
    with publishing(bridge.server.url, *NAMED) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("".join(f"line {number}\n" for number in range(50)))
        process.stdin.close()
        assert "lines are kept until it does" in process.stderr.readline()
        bridge.server.start()
        assert process.wait(2 * SOON) == 0
        assert "NATS keeps messages again" in process.stderr.read()
    eventually(lambda: said(f"t_{RUN}") == [f"line {number}" for number in range(50)])


def test_patience_ends_and_says_what_is_lost(bridge: Bridge) -> None:
    bridge.server.stop()
    status, errors = publish(bridge.server.url, "one\n", *NAMED, "--patience", "0.1")
    bridge.server.start()
    assert status == 1
    assert "the last lines are not stored" in errors


@pytest.mark.parametrize("locale", ["C.UTF-8", "en_US.UTF-8"])
def test_what_is_no_text_loses_no_line(bridge: Bridge, tmp_path: Path, locale: str) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"one\n\xff\xfe\n" + b"\0" * 10 + b"two\n" + b"\x1b" * 200_000 + b"\nthree\n")
    with junk.open("rb") as given:
        subprocess.run(
            [sys.executable, "-m", "openvibe", "publish", *NAMED], stdin=given, cwd=ROOT, check=True, timeout=SOON,
            env={**os.environ, "NATS_URL": bridge.server.url, "LC_ALL": locale, "PYTHONIOENCODING": _strict(locale)},
        )  # fmt: skip
    eventually(lambda: len(said(f"t_{RUN}")) == 6)
    found = said(f"t_{RUN}")
    assert found[:3] == ["one", "\N{REPLACEMENT CHARACTER}" * 2, "\N{REPLACEMENT CHARACTER}" * 10 + "two"]
    assert found[-1] == "three"


def _strict(locale: str) -> str:
    # That locale need not be installed here; Python is as strict in it.
    return "utf-8:strict" if locale == "en_US.UTF-8" else "utf-8:surrogateescape"


def test_a_log_file_is_followed_while_it_grows_and_is_replaced(bridge: Bridge, tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    with publishing(bridge.server.url, *NAMED, "--log-file", str(log)) as process:
        log.write_text("one\ntw")
        eventually(lambda: said(f"t_{RUN}") == ["one"])
        with log.open("a") as file:
            file.write("o\n")
        eventually(lambda: said(f"t_{RUN}") == ["one", "two"])
        log.rename(tmp_path / "agent.log.1")
        log.write_text("three\n")
        eventually(lambda: said(f"t_{RUN}") == ["one", "two", "three"])
        with log.open("a") as file:
            file.write("the end")
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON) == 0
    eventually(lambda: said(f"t_{RUN}") == ["one", "two", "three", "the end"])


def test_a_log_file_that_cannot_be_read_is_one_sentence_and_no_success(bridge: Bridge, tmp_path: Path) -> None:
    status, errors = publish(bridge.server.url, "", *NAMED, "--log-file", str(tmp_path))
    assert status == 2
    assert f"{tmp_path} cannot be read" in errors
    assert "Traceback" not in errors


def test_a_kind_and_an_agent_that_a_script_left_empty_are_the_usual_ones(bridge: Bridge) -> None:
    status, errors = publish(bridge.server.url, "one\n", *NAMED[:-2], "--kind", "", "--agent", "")
    assert (status, errors) == (0, "")
    eventually(lambda: said(f"t_{RUN}") == ["one"])
    event = Event.objects.get(channel=f"t_{RUN}", kind__startswith="agent.")
    assert (event.actor, event.kind) == ("agent", "agent.message")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "--run-uid"),
        (("--general", "--attr", "x"), "no k=v"),
        (("--general", "--prefix", "my flow"), "--prefix"),
        (("--general", "--prefix", "workflow.>"), "--prefix"),
    ],
)
def test_what_makes_no_sense_is_refused(options: tuple[str, ...], reason: str) -> None:
    status, errors = publish("nats://127.0.0.1:1", "one\n", *options)
    assert status == 2
    assert reason in errors
