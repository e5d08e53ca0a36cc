"""Gates that several people are asked at, by every rule, in a runtime without a server."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations, product
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvibe import OperatorRuntime, RunError, SetupError, groups, human_in_the_loop, node, operator, workflow
from openvibe.testing import MemoryHost, SettableClock
from tests.unit.desks import desk


def board(**options):
    @workflow(id="ask")
    class Ask:
        @human_in_the_loop(prompt="Ship it?", **{"approvers": ("ann", "ben", "cem"), **options})
        def review(self, state):
            return {"letter": state["letter"]}

        @node
        def send(self, state):
            return {"letter": "sent"}

    return desk(Ask, review="")


def asked(**options):
    runtime = OperatorRuntime()
    runtime.register(board(**options))
    return runtime, runtime.activate("desk", "ask")


def statuses(run):
    return [wait.status for wait in run.waits]


def test_all_of_them_must_say_yes_and_the_run_goes_on_once():
    runtime, run = asked()
    assert [(wait.approver, wait.seat, wait.rule, wait.needed) for wait in run.open_waits] == [
        ("ann", 0, "all", 3), ("ben", 1, "all", 3), ("cem", 2, "all", 3),
    ]  # fmt: skip
    for name in ("cem", "ann"):
        assert runtime.resume(run.id, "approve", by=name).status == "waiting"
    run = runtime.resume(run.id, "approve", by="ben")
    assert (run.status, run.output["letter"], run.output["review"]) == ("completed", "sent", "approve")


def test_one_rejection_ends_a_group_of_which_all_must_agree():
    runtime, run = asked()
    runtime.resume(run.id, "approve", by="ann")
    run = runtime.resume(run.id, "reject", by="ben", notes="too early")
    assert (run.status, run.error) == ("failed", "Rejected at review: ben: too early")
    assert statuses(run) == ["resolved", "resolved", "cancelled"]


def test_any_yes_is_enough_and_the_others_are_not_waited_for():
    runtime, run = asked(rule="any")
    assert runtime.resume(run.id, "reject", by="ann").status == "waiting"
    run = runtime.resume(run.id, "approve", by="ben")
    assert run.status == "completed"
    assert statuses(run) == ["resolved", "resolved", "cancelled"]


def test_a_quorum_that_cannot_be_met_any_more_rejects():
    runtime, run = asked(quorum=2)
    assert runtime.resume(run.id, "reject", by="ann").status == "waiting"
    run = runtime.resume(run.id, "reject", by="ben", notes="no")
    assert (run.status, run.error) == ("failed", "Rejected at review: ben: no")
    assert statuses(run)[2] == "cancelled"


def test_people_who_do_not_agree_on_one_decision_reject_and_the_run_tells_how_they_voted():
    runtime, run = asked(quorum=2, decisions=("now", "later", "reject"), approvers=("ann", "ben"))
    runtime.resume(run.id, "now", by="ann")
    run = runtime.resume(run.id, "later", by="ben")
    assert run.error == "Rejected at review: 1 for 'now', 1 for 'later'; 2 had to agree"


def test_nobody_counts_twice():
    runtime, run = asked(approvers=("finance", "finance"))
    first, second = run.open_waits
    runtime.resume(run.id, "approve", wait_id=first.id, by="ann")
    with pytest.raises(RunError, match="everybody counts once"):
        runtime.resume(run.id, "approve", wait_id=second.id, by="ann")
    assert runtime.resume(run.id, "approve", wait_id=second.id, by="ben").status == "completed"


def test_the_same_answer_again_is_no_second_vote():
    runtime, run = asked(quorum=2)
    first = run.open_waits[0]
    for _ in range(3):
        assert runtime.resume(run.id, "approve", wait_id=first.id).status == "waiting"


def test_without_a_name_or_a_seat_nobody_knows_whose_answer_it_is():
    runtime, run = asked()
    with pytest.raises(RunError, match="waits at 3 gates; name one"):
        runtime.resume(run.id, "approve")


def test_the_clock_decides_for_those_who_were_silent():
    clock = SettableClock()
    options = {"timeout": timedelta(hours=1), "on_timeout": "approve", "quorum": 2}
    with OperatorRuntime(host=MemoryHost(clock=clock)) as runtime:
        runtime.register(board(**options))
        run = runtime.activate("desk", "ask")
        runtime.resume(run.id, "reject", by="ann")
        runtime.advance(timedelta(hours=2))
        assert runtime.run(run.id).status == "completed"


def test_whom_the_question_is_passed_on_to_answers_for_all_who_were_silent():
    clock = SettableClock()
    with OperatorRuntime(host=MemoryHost(clock=clock)) as runtime:
        runtime.register(board(timeout=timedelta(hours=1), escalate_to="eve"))
        run = runtime.activate("desk", "ask")
        runtime.resume(run.id, "approve", by="ann")
        runtime.advance(timedelta(minutes=90))
        assert [wait.assigned_to for wait in runtime.run(run.id).open_waits] == ["eve", "eve"]
        assert runtime.resume(run.id, "approve", by="eve").status == "waiting"
        assert runtime.resume(run.id, "approve", by="eve").status == "completed"


def test_a_group_survives_its_process(tmp_path):
    kept = f"sqlite:///{tmp_path / 'runs.db'}"
    with OperatorRuntime(checkpointer=kept) as runtime:
        runtime.register(board(quorum=2))
        run = runtime.activate("desk", "ask")
        runtime.resume(run.id, "approve", by="ann")
    with OperatorRuntime(checkpointer=kept) as another:
        another.register(board(quorum=2))
        assert another.resume(run.id, "approve", by="cem").status == "completed"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"approvers": "ann"}, "is no tuple"),
        ({"approvers": ("ann", "")}, "no names"),
        ({"approvers": (), "rule": "any"}, "need approvers="),
        ({"rule": "most"}, "none of 'all', 'any' and 'quorum'"),
        ({"rule": "all", "quorum": 2}, "goes with the rule 'quorum' alone"),
        ({"rule": "quorum"}, "goes with the rule 'quorum' alone"),
        ({"quorum": 4}, "not from 1 to 3"),
        ({"decisions": ("now", "later")}, "needs 'reject'"),
        ({"edits": ("letter",)}, "what one changes, the others have not seen"),
    ],
)
def test_approvers_who_cannot_come_to_a_decision_are_refused(options, told):
    with pytest.raises(SetupError, match=told):
        board(**options)


def test_where_one_yes_is_enough_that_person_may_change_what_is_sent():
    runtime, run = asked(rule="any", edits=("letter",))
    wait = run.open_waits[1]
    assert runtime.resume(run.id, "approve", values={"letter": "better"}, wait_id=wait.id).status == "completed"


def requesting(**options):
    @operator(id="buyer")
    class Buyer:
        offers: dict = {}

        @workflow(id="buy", inputs=())
        class Buy:
            @node
            def ask(self, state, ctx):
                return {"offers": ctx.request_each(["north", "south"], "price", {"loaves": 2}, **options)}

    def seller(name, price):
        @operator(id=name)
        class Seller:
            loaves: int = 0
            price: int = 0

            @workflow(id="quote", trigger="request:price", inputs=("loaves",))
            class Quote:
                @node
                def quote(self, state):
                    if not price:
                        raise RunError(f"{name} is sold out")
                    return {"price": price * state["loaves"]}

        return Seller

    def bought(**prices):
        runtime = OperatorRuntime()
        for item in (Buyer, *(seller(name, price) for name, price in prices.items())):
            runtime.register(item)
        return runtime.activate("buyer", "buy")

    return bought


def test_several_operators_are_asked_at_once_and_the_node_gets_all_answers():
    run = requesting()(north=3, south=4)
    assert {name: offer["price"] for name, offer in run.output["offers"].items()} == {"north": 6, "south": 8}


def test_an_operator_that_fails_among_all_fails_the_node_and_is_named():
    run = requesting()(north=0, south=4)
    assert run.status == "failed"
    assert "1 of the 2 good answers came: north: " in run.error
    assert "sold out" in run.error


def test_of_any_the_first_good_answer_is_taken():
    run = requesting(rule="any")(north=0, south=4)
    assert {name: offer["price"] for name, offer in run.output["offers"].items()} == {"south": 8}
    assert requesting(rule="any")(north=0, south=0).status == "failed"


def seats(rule, needed, answers):
    return [
        SimpleNamespace(
            kind="approval", rule=rule, needed=needed, decision=answer, status="resolved" if answer else "pending"
        )
        for answer in answers
    ]


@given(st.integers(1, 4).flatmap(lambda among: st.tuples(st.just(among), st.integers(1, among))), st.data())
def test_a_verdict_once_there_is_never_changed_by_later_answers(shape, data):
    among, needed = shape
    votes = data.draw(st.lists(st.sampled_from(["approve", "reject"]), min_size=among, max_size=among))
    order = data.draw(st.permutations(range(among)))
    given: list[str] = [""] * among
    told = []
    for place in order:
        given[place] = votes[place]
        told.append(groups.verdict(seats("quorum", needed, given)))
    known = [word for word in told if word]
    assert len(set(known)) == 1
    assert told[-1] == ("approve" if votes.count("approve") >= needed else "reject")
    assert told.index(known[0]) == next(
        at for at in range(among)
        if [votes[place] for place in order[: at + 1]].count("approve") >= needed
        or [votes[place] for place in order[: at + 1]].count("reject") > among - needed
    )  # fmt: skip


@pytest.mark.parametrize("rule", ["any", "quorum"])
def test_results_end_a_group_when_enough_are_good_or_too_few_can_be(rule):
    def result(state):
        status, error = {"good": ("resolved", ""), "bad": ("resolved", "no"), "late": ("expired", "silent")}.get(
            state, ("pending", "")
        )
        return SimpleNamespace(kind="tool", rule=rule, needed=2, status=status, error=error)

    for states in product(["good", "bad", "late", "open"], repeat=3):
        good, open_still = states.count("good"), states.count("open")
        expected = good >= 2 or good + open_still < 2 or not open_still
        assert groups.over([result(state) for state in states]) == expected, states


def test_the_order_of_answers_does_not_matter_to_what_comes_out():
    for order in permutations(["ann", "ben", "cem"]):
        runtime, run = asked(quorum=2)
        for name in order:
            if run.status == "waiting":
                run = runtime.resume(run.id, "reject" if name == "ben" else "approve", by=name)
        assert run.output["review"] == "approve"
