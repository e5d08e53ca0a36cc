"""`manage.py backfill`: what was never heard stands on the run's timeline afterwards, once, beside what was."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from openvibe.bus import Message
from openvibe.protocol import workflow
from operators.bridge import ingest
from operators.models import Event, Run
from tests.bridge.conftest import said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project", "memory")]

THREAD = f"t_{workflow.run_id('default', 'uid-1')}"


def backfill(file: Path, *more: str) -> str:
    output = io.StringIO()
    named = ("--run-uid", "uid-1", "--workflow-name", "fix", "--namespace", "lab", "--agent", "coder")
    call_command("backfill", str(file), *named, "--began", "2026-02-16T10:00:00+00:00", *more, stdout=output)
    return output.getvalue().strip()


def events_file(folder: Path, *texts: str) -> Path:
    file = folder / "implementation-events.jsonl"
    lines = [{"type": "item.completed", "item": {"type": "agent_message", "text": text}} for text in texts]
    noise = [{"type": "turn.started"}, {"type": "item.completed", "item": {"type": "command_execution", "text": "ls"}}]
    written = [json.dumps(line) for line in [noise[0], *lines, noise[1]]]
    file.write_text("\n".join([*written, '{"type": "item.comp']))
    return file


def test_a_run_of_which_nobody_heard_is_known_afterwards(tmp_path: Path) -> None:
    assert backfill(events_file(tmp_path, "one", "two")) == "2 messages added"
    assert said(THREAD) == ["one", "two"]
    first = Event.objects.filter(channel=THREAD, kind="agent.message").order_by("seq")[0]
    assert first.data["attrs"] == {
        "source": "artifact-backfill",
        "artifact": "implementation-events.jsonl",
        "line": 2,
        "nats_subject": "workflow.lab.fix.uid-1.agent.coder.message",
    }
    assert first.data["sent_at"] == "2026-02-16T10:00:00+00:00"
    assert Run.objects.get().status == "running"


def test_doing_it_again_adds_nothing(tmp_path: Path) -> None:
    file = events_file(tmp_path, "one", "two", "two")
    backfill(file)
    assert backfill(file) == "0 messages added"
    assert said(THREAD) == ["one", "two", "two"]


def test_only_what_is_missing_is_added(tmp_path: Path) -> None:
    heard = {"message_id": "m1", "content": "two"}
    ingest.take([Message("workflow.lab.fix.uid-1.agent.coder.message", json.dumps(heard).encode())])
    assert backfill(events_file(tmp_path, "one", "two", "three")) == "2 messages added"
    assert said(THREAD) == ["two", "one", "three"]


@pytest.mark.usefixtures("other_project")
def test_a_run_of_another_project_stays_there(tmp_path: Path) -> None:
    file = events_file(tmp_path, "one", "two")
    assert backfill(file, "--project", "other") == "2 messages added"
    assert backfill(file, "--project", "other") == "0 messages added"
    assert said(f"t_{workflow.run_id('other', 'uid-1')}", project="other") == ["one", "two"]
    assert said(THREAD) == []
    with pytest.raises(CommandError, match="There is no project 'nobodys'"):
        backfill(file, "--project", "nobodys")


def test_a_text_too_long_for_a_row_is_added_once(tmp_path: Path) -> None:
    file = events_file(tmp_path, "x" * 100_000)
    backfill(file)
    backfill(file)
    assert Event.objects.filter(channel=THREAD, kind="agent.message").count() == 1


def test_a_text_too_long_for_a_row_that_was_heard_is_not_missing(tmp_path: Path) -> None:
    text = "x" * 100_000
    heard = {"message_id": "m1", "content": text}
    ingest.take([Message("workflow.lab.fix.uid-1.agent.coder.message", json.dumps(heard).encode())])
    assert backfill(events_file(tmp_path, text, "two", text)) == "2 messages added"
    assert backfill(events_file(tmp_path, text, "two", text)) == "0 messages added"


def test_a_nul_in_a_file_costs_no_message(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    # A log that was cut short while somebody wrote to it begins with NULs.
    log.write_text("\0\0one\ntwo\n")
    assert backfill(log) == "2 messages added"
    assert backfill(log) == "0 messages added"
    backfill(events_file(tmp_path, "th\0ree"))
    assert said(THREAD) == [
        "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}one",
        "two",
        "th\N{REPLACEMENT CHARACTER}ree",
    ]


def test_a_log_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "agent.log"
    file.write_text("one\n\ntwo\n")
    assert backfill(file) == "2 messages added"
    assert said(THREAD) == ["one", "two"]


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        backfill(tmp_path / "nothing.jsonl")
