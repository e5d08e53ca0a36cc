"""The shared context of a runtime in a script: revisions, watches of nodes, and the iterator beside them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from openvibe import OperatorRuntime, node, operator, workflow
from openvibe.errors import RunError
from openvibe.host import Change
from openvibe.testing import MemoryHost, play

KEY = "ada/score"


@operator(id="watcher")
class Watcher:
    value: int = 0
    revision: int = 0
    note: str = ""

    @workflow(id="next")
    class Next:
        @node
        def look(self, state, ctx):
            seen = ctx.context.entry("leads", KEY)
            change = ctx.context.watch("leads", KEY, after=seen.revision, timeout=timedelta(hours=1))
            return {"value": change.value, "revision": change.revision}

    @workflow(id="tell", inputs=("value",))
    class Tell:
        @node
        def tell(self, state, ctx):
            ctx.context.put("leads", KEY, state["value"])

    @workflow(id="nowhere")
    class Nowhere:
        @node
        def look(self, state, ctx):
            ctx.context.watch("people", KEY, after=0)


@operator(id="mixed")
class Mixed:
    note: str = ""

    @workflow(id="mixed")
    class Mixed:
        @node
        def look(self, state, ctx):
            if ctx.context.get("leads", KEY) is None:
                return {"note": ctx.request("desk", "word")}
            return {"note": str(ctx.context.watch("leads", KEY, after=0).value)}


@pytest.fixture(params=["memory", "file", "host"])
def runtime(request: Any, tmp_path: Path) -> Iterator[OperatorRuntime]:
    options: dict[str, Any] = {
        "memory": {},
        "file": {"checkpointer": f"sqlite:///{tmp_path / 'runs.db'}"},
        "host": {"host": MemoryHost()},
    }[request.param]
    with OperatorRuntime(llm="simulated", **options) as made:
        made.register(Watcher)
        yield made


def test_each_put_is_a_revision(runtime: OperatorRuntime) -> None:
    assert runtime.context.entry("leads", KEY) == Change(0)
    runtime.context.put("leads", KEY, 1)
    runtime.context.put("leads", KEY, [2])
    assert runtime.context.entry("leads", KEY) == Change(2, [2])
    assert (runtime.context.get("leads", KEY), runtime.context.keys("leads")) == ([2], [KEY])


def test_values_that_a_host_begins_with_are_revisions() -> None:
    host = MemoryHost(buckets={"leads": {KEY: 5}})
    with OperatorRuntime(host=host) as runtime:
        assert runtime.context.entry("leads", KEY) == Change(1, 5)
        runtime.context.put("leads", KEY, 6)
        assert runtime.context.entry("leads", KEY) == Change(2, 6)


def test_a_run_that_watches_goes_on_with_the_next_put(runtime: OperatorRuntime) -> None:
    runtime.context.put("leads", KEY, 1)
    run = runtime.activate("watcher", "next")
    assert (run.status, run.open_waits[0].kind) == ("waiting", "change")
    runtime.context.put("leads", "bob/score", 2)
    assert runtime.run(run.id).status == "waiting"
    runtime.context.put("leads", KEY, 3)
    ended = runtime.run(run.id)
    assert (ended.status, ended.output["value"], ended.output["revision"]) == ("completed", 3, 2)


def test_the_put_of_another_run_wakes_too(runtime: OperatorRuntime) -> None:
    run = runtime.activate("watcher", "next")
    runtime.activate("watcher", "tell", {"value": 4})
    assert runtime.run(run.id).output["value"] == 4


def test_a_watch_ends_at_its_deadline(runtime: OperatorRuntime) -> None:
    run = runtime.activate("watcher", "next")
    runtime.advance(timedelta(hours=2))
    ended = runtime.run(run.id)
    assert ended.status == "failed"
    assert "watched leads/ada/score: It did not change before" in ended.error


def test_another_processs_put_is_found_at_the_next_tick(tmp_path: Path) -> None:
    where = f"sqlite:///{tmp_path / 'runs.db'}"
    with OperatorRuntime(checkpointer=where) as ours, OperatorRuntime(checkpointer=where) as theirs:
        ours.register(Watcher)
        run = ours.activate("watcher", "next")
        theirs.context.put("leads", KEY, 9)
        assert ours.run(run.id).status == "waiting"
        assert [run.status for run in ours.tick()] == ["completed"]
        assert ours.tick() == []


def test_no_result_answers_a_watch(runtime: OperatorRuntime) -> None:
    run = runtime.activate("watcher", "next")
    with pytest.raises(RunError, match=r"runtime\.context\.put answers it"):
        runtime.answer(run.open_waits[0].id, result=3)


def test_a_watch_of_no_bucket_is_refused(runtime: OperatorRuntime) -> None:
    assert "has no bucket 'people'" in runtime.activate("watcher", "nowhere").error
    with pytest.raises(RunError, match="has no bucket 'people'"):
        runtime.context.watch("people", KEY, after=0)


def test_an_answer_to_another_question_is_no_change() -> None:
    with OperatorRuntime(llm="simulated") as runtime:
        runtime.register(Mixed)
        # Nobody answers on this bus, and meanwhile the value comes.
        runtime.on("wait.opened")(lambda event: runtime.context.put("leads", KEY, 1))
        run = runtime.activate("mixed", "mixed")
        assert run.status == "failed"
        assert "asked in another order than before" in run.error


def test_a_tested_watch_is_given_its_value() -> None:
    run = play(Watcher, "next", answers=[{"value": 8}])
    assert (run.status, run.output["value"]) == ("completed", 8)


def test_a_script_iterates_over_changes_until_nothing_more_comes(runtime: OperatorRuntime) -> None:
    for value in (1, 2):
        runtime.context.put("leads", KEY, value)
    changes = runtime.context.watch("leads", KEY, after=1, timeout=timedelta(seconds=0.2))
    assert list(changes) == [Change(2, 2)]


def test_an_iterator_that_waits_is_woken_by_a_put(runtime: OperatorRuntime) -> None:
    seen: list[Change] = []
    waiting = threading.Event()

    def read() -> None:
        changes = runtime.context.watch("leads", KEY, after=0, timeout=timedelta(seconds=30))
        waiting.set()
        for change in changes:
            seen.append(change)
            if change.value == "last":
                return

    reader = threading.Thread(target=read)
    reader.start()
    assert waiting.wait(10)
    for value in ("first", "last"):
        runtime.context.put("leads", KEY, value)
    reader.join(10)
    assert [change.value for change in seen] == ["first", "last"]
