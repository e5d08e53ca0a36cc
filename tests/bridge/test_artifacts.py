"""What external agents left in files: read when their run ends, and when nobody told of its end, without a hand."""

from __future__ import annotations

import dataclasses
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from openvibe.bus import Message
from openvibe.errors import SetupError
from openvibe.protocol import workflow
from openvibe.protocol.workflow import Identity
from openvibe_site import env
from operators.bridge import artifacts, ingest
from operators.models import Artifact, DeadLetter, Event, Run
from tests.bridge.conftest import Bridge, eventually, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

THREAD = f"t_{workflow.run_id('default', 'uid-1')}"
PLACE = "workflow.lab.fix.uid-1.agent.coder"


@pytest.fixture
def folders(tmp_path: Path, settings: Any) -> Path:
    pattern = str(tmp_path / "{namespace}" / "runs-{uid}")
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, artifacts=pattern)
    return tmp_path


def left(folders: Path, *texts: str, uid: str = "uid-1", minutes: int = 0, of: str = "lab") -> Path:
    """Write a run's file; nobody has written to it for so many minutes."""
    folder = folders / of / f"runs-{uid}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".codex-implementation-events.jsonl"
    lines = [{"type": "item.completed", "item": {"type": "agent_message", "text": text}} for text in texts]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    then = datetime.now(UTC).timestamp() - 60 * minutes
    os.utime(file, (then, then))
    return file


def heard(kind: str, content: str, **more: Any) -> None:
    body = {"message_id": f"{kind}:{content}", "content": content, **more}
    ingest.take([Message(f"{PLACE}.{kind}", json.dumps(body).encode())])


def read(*, later: timedelta = timedelta(seconds=3)) -> int:
    return artifacts.read_due(timezone.now() + later)


@pytest.mark.usefixtures("memory")
class TestAtRest:
    """With no bridge beside them."""

    def test_the_end_of_a_run_fills_in_what_was_not_heard(self, folders: Path) -> None:
        left(folders, "one", "two", "three")
        heard("message", "two")
        heard("run-complete", "done", status="succeeded")
        assert (read(), read()) == (2, 0)
        assert said(THREAD) == ["two", "done", "one", "three"]
        added = Event.objects.get(channel=THREAD, data__content="one")
        assert (added.actor, added.data["attrs"]["source"]) == ("coder", "artifact-backfill")
        assert Run.objects.get().status == "completed"
        row = Artifact.objects.get()
        assert (row.added, row.due_at) == (2, None)

    def test_a_file_that_comes_later_is_looked_for_again_and_given_up_in_the_end(self, folders: Path) -> None:
        heard("run-complete", "done")
        assert read() == 0
        left(folders, "one")
        assert read() == 0
        assert read(later=timedelta(minutes=1)) == 1
        left(folders, "two", uid="uid-2")
        Artifact.objects.update(due_at=timezone.now(), tries=artifacts.MOST_TRIES, run=Run.objects.get())
        (folders / "lab" / "runs-uid-1" / ".codex-implementation-events.jsonl").unlink()
        read()
        assert Artifact.objects.get().due_at is None

    def test_two_readers_read_a_file_once(self, folders: Path) -> None:
        left(folders, "one")
        heard("run-complete", "done")
        [item] = Artifact.objects.all()
        now = timezone.now() + timedelta(seconds=3)
        assert [artifacts._taken(item, now), artifacts._taken(item, now)] == [True, False]

    def test_a_file_of_an_odd_name_is_read_and_one_that_cannot_be_read_hinders_no_other(self, folders: Path) -> None:
        odd = left(folders, "one", uid="uid-0", minutes=5)
        odd.rename(os.fsdecode(os.fsencode(odd.parent) + b"/\xff-implementation-events.jsonl"))
        broken = left(folders, "lost", uid="uid-2", minutes=5)
        broken.unlink()
        broken.symlink_to("x" * 300)
        left(folders, "two", minutes=5)

        artifacts.scan(timezone.now())

        assert read() == 2
        assert said(THREAD) == ["two"]
        assert said(f"t_{workflow.run_id('default', 'uid-0')}") == ["one"]
        artifacts.scan(timezone.now())
        assert read() == 0

    def test_a_run_whose_end_nobody_heard_is_reconciled_when_it_has_become_quiet(self, folders: Path) -> None:
        file = left(folders, "one", "two")
        artifacts.scan(timezone.now())
        assert not Run.objects.exists()
        artifacts.scan(timezone.now() + timedelta(minutes=5))
        assert read(later=timedelta(minutes=5)) == 2
        assert said(THREAD) == ["one", "two"]
        assert Run.objects.get().input == {"workflow_uid": "uid-1", "workflow_namespace": "lab"}
        artifacts.scan(timezone.now() + timedelta(minutes=6))
        assert Artifact.objects.get().due_at is None
        left(folders, "one", "two", "three")
        os.utime(file)
        artifacts.scan(timezone.now() + timedelta(minutes=6))
        assert read(later=timedelta(minutes=6)) == 1

    def test_a_run_that_is_spoken_of_is_left_alone(self, folders: Path) -> None:
        left(folders, "one", "two", minutes=5)
        heard("message", "one")
        artifacts.scan(timezone.now())
        assert not Artifact.objects.exists()

    def test_a_log_stands_in_where_nothing_was_heard(self, folders: Path) -> None:
        left(folders).rename(folders / "lab" / "runs-uid-1" / ".codex-implementation-agent.log")
        (folders / "lab" / "runs-uid-1" / ".codex-implementation-agent.log").write_text("one\n\ntwo\n")
        heard("run-complete", "done")
        assert read() == 2
        assert said(THREAD) == ["done", "one", "two"]

    def test_a_log_adds_nothing_to_what_was_heard(self, folders: Path) -> None:
        left(folders)
        (folders / "lab" / "runs-uid-1" / ".codex-implementation-events.jsonl").unlink()
        (folders / "lab" / "runs-uid-1" / "agent.log").write_text("debug: thinking\n")
        heard("message", "I think")
        heard("run-complete", "done")
        assert read() == 0
        assert said(THREAD) == ["I think", "done"]

    def test_no_uid_leads_out_of_the_folder(self, folders: Path) -> None:
        left(folders, "secret")
        pattern = str(folders / "lab" / "{uid}")
        assert artifacts.find(pattern, Identity("runs-uid-1", "", ""), project="default") is not None
        outside = str(folders / "elsewhere" / "{uid}")
        assert artifacts.find(outside, Identity("../lab/runs-uid-1", "", ""), project="default") is None

    @pytest.mark.usefixtures("other_project")
    def test_each_project_has_its_own_runs_where_the_place_names_it(self, folders: Path, settings: Any) -> None:
        pattern = str(folders / "{project}" / "runs-{uid}")
        settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, artifacts=pattern)
        for project in ("default", "other", "nobodys"):
            left(folders, f"of {project}", of=project, minutes=5)
        artifacts.scan(timezone.now())
        assert read() == 2
        assert said(THREAD) == ["of default"]
        assert said(f"t_{workflow.run_id('other', 'uid-1')}", project="other") == ["of other"]
        artifacts.scan(timezone.now())
        assert read() == 0

    @pytest.mark.usefixtures("other_project")
    def test_a_place_that_names_no_project_has_runs_of_the_default_one_only(self, folders: Path) -> None:
        left(folders, "not theirs")
        body = {"message_id": "1", "content": "theirs"}
        ingest.take([Message(f"tenant.other.{PLACE}.run-complete", json.dumps(body).encode())])
        assert read() == 0
        assert said(f"t_{workflow.run_id('other', 'uid-1')}", project="other") == ["theirs"]

    def test_without_the_setting_an_end_writes_nothing_down(self) -> None:
        heard("run-complete", "done")
        assert not Artifact.objects.exists()


def test_a_running_bridge_reads_the_file_after_the_run_has_ended(folders: Path, bridge: Bridge) -> None:
    left(folders, "one", "two")
    bridge.send((f"{PLACE}.message", {"message_id": "1", "content": "two"}))
    bridge.send((f"{PLACE}.run-complete", {"message_id": "2", "content": "done", "status": "failed"}))
    eventually(lambda: said(THREAD) == ["two", "done", "one"])
    assert Run.objects.get().status == "failed"
    assert not DeadLetter.objects.exists()


def test_a_bridge_that_starts_reconciles_what_lies_there(folders: Path, bridge: Bridge) -> None:
    bridge.stop()
    left(folders, "one", minutes=10)
    bridge.start()
    eventually(lambda: said(THREAD) == ["one"])


@pytest.mark.parametrize("given", ["/srv/artifacts", "artifacts/{uid}", "/srv/{uid}/{other}", "/srv/{uid}/{uid}"])
def test_a_place_that_names_no_runs_folder_is_refused(given: str) -> None:
    with pytest.raises(SetupError, match=r"an absolute path with \{uid\} in it"):
        env.read({"OPENVIBE_ARTIFACTS": given})
