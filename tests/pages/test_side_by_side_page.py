"""A session whose chunks are worked at side by side, as people see it."""

from __future__ import annotations

import pytest

from operators.models import Operator, Run, Wait
from operators.services import waits
from tests.pages.conftest import begun, place, played, quoted

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(registered: dict[str, Operator]) -> Run:
    """A session of two chunks, with a gate open at each; the step that asked about the first one is over."""
    chunks = [{"id": name, "description": f"Do {name}", "phases": ["coding"]} for name in ("left", "right")]
    run = begun(registered["coders"], "code_session", chunks=chunks)
    for chunk in ("left", "right"):
        wait = Wait.objects.select_related("run__operator").pending().get(run=run, payload__task__chunk_id=chunk)
        assert waits.settle(wait, result={"summary": f"{chunk} is done"}, by="ada")
        run = played(run)
    return run


def test_both_gates_are_open_on_the_page_and_each_is_decided_by_itself(session, alice, bob, browse) -> None:
    gates = {wait.payload["chunk_id"]: wait for wait in session.waits.filter(kind="approval").select_related("run")}
    page = browse(alice).get(f"/agents/{session.id}/").content.decode()
    for chunk, gate in gates.items():
        assert f"{chunk} is done" in page
        assert f"Coding of {chunk} is complete" in page
        assert f"agent to work on <b>{chunk}</b>" in page
        assert place(gate) in page
    assert "have to agree" not in browse(bob).get(place(gates["left"])).content.decode()
    listed = browse(bob).get("/agents/approvals/").content.decode()
    assert all(place(gate) in listed for gate in gates.values())
    browse(bob).post(place(gates["left"]), quoted(gates["left"], decision="approve"))
    assert set(Wait.objects.filter(run=session, kind="approval").values_list("name", "status")) == {
        ("left/coding/1/gate", "resolved"), ("right/coding/1/gate", "pending")
    }  # fmt: skip
    played(session)
    browse(alice).post(place(gates["right"]), quoted(gates["right"], decision="approve"))
    assert played(session).status == "completed"
    assert browse(alice).get(f"/agents/{session.id}/").status_code == 200


def test_a_stranger_sees_neither(session, charlie, browse) -> None:
    assert browse(charlie).get(f"/agents/{session.id}/").status_code == 404
