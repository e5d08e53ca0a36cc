"""The workflow `code_session`: chunks in the order of their dependencies, phases, gates, a bounded number of rounds."""

from __future__ import annotations

from typing import Any

import pytest

from openvibe.runtime import OperatorRuntime
from openvibe.testing import play
from operators.coders import SAMPLE, Coders, graphs
from operators.coders.graphs import Misdrawn

YES = "approve"


def chunk(id: str, *depends_on: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "description": f"Do {id}", "depends_on": list(depends_on), **more}


def done(*files: str) -> dict[str, Any]:
    return {"result": {"summary": "done", "files_changed": list(files)}}


ROUND = [done("a.py"), YES, done("test_a.py"), YES, done(), YES]


def tasks(run: Any) -> list[tuple[str, str, int]]:
    """Role, chunk and round of all the work that was asked for, in order."""
    asked = [wait for wait in run.waits if wait.kind == "work"]
    return [(wait.payload["role"], wait.payload["task"]["chunk_id"], wait.payload["task"]["round"]) for wait in asked]


def session(*chunks: dict[str, Any], answers: Any, **more: Any) -> Any:
    return play(Coders, "code_session", {"chunks": list(chunks), **more}, answers=answers)


def test_each_chunk_is_coded_tested_and_reviewed_with_a_gate_after_each():
    run = session(chunk("a"), answers=ROUND)
    assert run.status == "completed", run.error
    assert [wait.kind for wait in run.waits] == ["work", "approval"] * 3
    assert tasks(run) == [("coding", "a", 1), ("testing", "a", 1), ("review", "a", 1)]
    gates = [wait.payload for wait in run.waits if wait.kind == "approval"]
    assert [gate["phase"] for gate in gates] == ["post-coding", "post-testing", "post-review"]
    assert gates[0]["changes"] == {"files_added": [], "files_modified": ["a.py"], "files_deleted": []}
    assert run.output["results"]["a"]["rounds"] == 1


def test_what_a_phase_made_is_told_to_the_next_one():
    run = session(chunk("a", test_requirements=["fast"]), answers=ROUND, repo="/src")
    test, review = [wait.payload["task"] for wait in run.waits if wait.kind == "work"][1:]
    assert (test["target_code"], test["test_requirements"]) == ("a.py", ["fast"])
    assert review["files"] == ["a.py", "test_a.py"]
    assert review["context"] == {"repo_path": "/src", "branch": "agent/a"}


def test_a_chunk_waits_for_those_that_it_depends_on():
    run = session(chunk("c", "b"), chunk("b", "a"), chunk("a"), answers=ROUND * 3)
    assert run.status == "completed"
    assert list(run.output["results"]) == ["a", "b", "c"]


def test_a_chunk_has_only_the_phases_that_it_names():
    run = session(chunk("a", phases=["review", "coding"]), answers=[done("a.py"), YES, done(), YES])
    assert run.status == "completed"
    assert [role for role, _, _ in tasks(run)] == ["coding", "review"]


def test_tests_that_fail_send_the_chunk_back_to_coding_with_the_reason():
    run = session(chunk("a"), answers=[done("a.py"), YES, {"error": "2 of 9 failed"}, *ROUND])
    assert run.status == "completed"
    assert tasks(run) == [
        ("coding", "a", 1),
        ("testing", "a", 1),
        ("coding", "a", 2),
        ("testing", "a", 2),
        ("review", "a", 2),
    ]
    again = [wait.payload["task"] for wait in run.waits if wait.kind == "work"][2]
    assert again["feedback"] == "testing: 2 of 9 failed"
    assert run.output["results"]["a"]["rounds"] == 2


def test_a_persons_no_sends_the_chunk_back_to_coding_with_the_persons_words():
    no = {"decision": "reject", "notes": "Handle errors"}
    run = session(chunk("a"), answers=[done("a.py"), no, *ROUND])
    assert run.status == "completed"
    again = [wait.payload["task"] for wait in run.waits if wait.kind == "work"][1]
    assert (again["round"], again["feedback"]) == (2, "coding: Handle errors")


def test_rounds_come_to_an_end_and_the_failure_says_where_and_why():
    bad = [done("a.py"), YES, {"error": "broken"}]
    run = session(chunk("a"), answers=bad * 2, max_rounds=2)
    assert run.status == "failed"
    assert "Chunk 'a' has failed in round 2 of 2, at testing: broken" in str(run.error)


def test_a_chunk_that_failed_once_does_not_spend_the_rounds_of_another_one():
    bad = [done("a.py"), YES, {"error": "broken"}]
    run = session(chunk("a"), chunk("b", "a"), answers=[*bad, *ROUND, *bad, *ROUND], max_rounds=2)
    assert run.status == "completed"
    assert [item["rounds"] for item in run.output["results"].values()] == [2, 2]


class Desk:
    """A session in a runtime whose chunks are answered one by one, in any order."""

    def __init__(self, *chunks: dict[str, Any], **more: Any) -> None:
        self.runtime = OperatorRuntime(llm="simulated", bus="memory", scheduler="none", checkpointer="memory")
        self.runtime.register(Coders)
        self.run = self.runtime.activate("coders", "code_session", {"chunks": list(chunks), **more})

    @property
    def open(self) -> list[str]:
        """The nodes and chunks of what is asked now."""
        return sorted(f"{wait.node} {about(wait)}" for wait in self.run.open_waits)

    def answer(self, chunk: str, given: Any = None) -> None:
        """Answer what is asked about a chunk: yes, or that it is done."""
        [wait] = [wait for wait in self.run.open_waits if about(wait) == chunk]
        if wait.kind == "approval":
            self.run = self.runtime.resume(self.run.id, wait_id=wait.id, **({"decision": YES} | (given or {})))
        else:
            self.run = self.runtime.answer(wait.id, **(given or done(f"{chunk}.py")))


def about(wait: Any) -> str:
    return str((wait.payload.get("task") or wait.payload)["chunk_id"])


def test_chunks_that_do_not_depend_on_each_other_are_worked_at_the_same_time():
    desk = Desk(chunk("a"), chunk("b"), chunk("c", "a"))
    assert desk.open == ["code a", "code b"]
    waiting = next(wait for wait in desk.run.open_waits if about(wait) == "b")
    desk.answer("a")
    assert desk.open == ["code b", "post_coding a"]
    assert next(wait for wait in desk.run.open_waits if about(wait) == "b").id == waiting.id
    for _ in range(5):
        desk.answer("a")
    # `c` is begun as soon as `a` is done, however long `b` takes.
    assert desk.open == ["code b", "code c"]
    for chunk_id in ["c"] * 6 + ["b"] * 6:
        desk.answer(chunk_id)
    assert desk.run.status == "completed", desk.run.error
    assert list(desk.run.output["results"]) == ["a", "c", "b"]
    assert len([wait for wait in desk.run.waits if wait.kind == "work"]) == 9


def test_a_chunk_that_has_failed_holds_up_those_that_depend_on_it_and_nobody_else():
    desk = Desk(chunk("a"), chunk("b"), chunk("c", "a"), chunk("d", "c"), max_rounds=1)
    desk.answer("a", {"error": "It does not compile"})
    assert desk.open == ["code b"]
    for _ in range(6):
        desk.answer("b")
    assert desk.run.status == "failed"
    told = "Chunk 'a' has failed in round 1 of 1, at coding: It does not compile; not begun for that reason: c, d"
    assert desk.run.error == told


def test_each_chunk_goes_through_rounds_of_its_own():
    desk = Desk(chunk("a", phases=["coding"]), chunk("b", phases=["coding"]))
    desk.answer("a", {"error": "broken"})
    desk.answer("b")
    assert desk.open == ["code a", "post_coding b"]
    desk.answer("b", {"decision": "reject", "notes": "Shorter"})
    told = {about(wait): wait.payload["task"]["feedback"] for wait in desk.run.open_waits}
    assert told == {"a": "coding: broken", "b": "coding: Shorter"}
    for chunk_id in ("a", "b", "b", "a"):
        desk.answer(chunk_id)
    assert {name: item["rounds"] for name, item in desk.run.output["results"].items()} == {"a": 2, "b": 2}


def test_the_sample_input_works():
    assert play(Coders, "code_session", SAMPLE, answers=ROUND * 2).status == "completed"


@pytest.mark.parametrize(
    ("chunks", "field", "message"),
    [
        ([], "chunks", "1 to 200"),
        ("a", "chunks", "1 to 200"),
        (["a"], "chunks.0", "object|dict"),
        ([{"id": "a"}], "chunks.0.description", "required"),
        ([chunk("a b")], "chunks.0.id", "match"),
        ([chunk("a", phases=["guessing"])], "chunks.0.phases.0", "coding"),
        ([chunk("a", phases=[])], "chunks.0.phases", "at least 1"),
        ([chunk("a", colour="red")], "chunks.0.colour", "not permitted"),
        ([chunk("a"), chunk("a")], "chunks.1.id", "already"),
        ([chunk("a"), chunk("b", "c")], "chunks.1.depends_on", "'c'"),
        ([chunk("a", "b"), chunk("b", "a")], "chunks", "depend on each other"),
        ([chunk("a", "a")], "chunks", "depend on each other"),
    ],
)
def test_a_graph_that_cannot_be_worked_off_is_refused_with_the_place(chunks: Any, field: str, message: str):
    with pytest.raises(Misdrawn, match=message) as caught:
        graphs.read(chunks)
    assert caught.value.field == field


def test_of_chunks_that_may_be_next_the_one_that_stands_first_is():
    order = [item.id for item in graphs.read([chunk("d", "b"), chunk("c"), chunk("b"), chunk("a")])]
    assert order == ["c", "b", "d", "a"]
