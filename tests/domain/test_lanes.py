"""A few runs of a process compute at once: by rank, without a lane that nobody gives back, never while a node plays."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

import pytest
from django.db import connection
from langgraph.graph import START, StateGraph

from openvibe import operator, workflow
from operators.models import Run
from operators.services import execution, lanes, leases
from operators.services.lanes import Lanes
from tests.acceptance.site import until
from tests.domain.lab import meddling, rung, served, started
from tests.threads import Crowd


def test_lanes_that_all_stand_still_do_not_hold_up_the_others(threads, caplog):
    stuck = Lanes(2, patience=0.05)
    stuck.take(0)
    stuck.take(0)

    def compute(_: int) -> None:
        with lanes.taken(stuck):
            pass

    list(threads.map(compute, range(6)))
    assert "one more is opened" in caplog.text
    stuck.give()
    stuck.give()
    assert waiting(stuck) == 0
    assert stuck._free >= 3


class Counted(TypedDict):
    number: int


def _meddle(state: Counted) -> dict[str, int]:
    for act in meddling:
        act()
    return {"number": state["number"] + 1}


_graph = StateGraph(Counted)
_graph.add_node("meddle", _meddle)
_graph.add_edge(START, "meddle")


@operator(id="lined", name="Lined up")
class Lined:
    number: int = 0

    @workflow(id="foreign", graph=_graph)
    class Foreign:
        """A graph of somebody else's."""


@pytest.fixture
def threads():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def waiting(lanes: Lanes) -> int:
    return len(lanes._waiting)


def test_no_more_compute_than_there_are_lanes(threads):
    narrow, inside = Lanes(2), Crowd()
    pair = threading.Barrier(2, timeout=30)

    def compute(_: int) -> None:
        with lanes.taken(narrow), inside:
            # Both lanes are used, again and again.
            pair.wait()

    list(threads.map(compute, range(12)))
    assert inside.most == 2
    assert narrow._free == 2


def test_who_has_come_least_far_goes_first_and_among_equals_who_came_first(threads):
    narrow, order = Lanes(1), []
    narrow.take(0)
    for number, rank in enumerate([3, 1, 2, 1, 0]):

        def compute(number: int = number, rank: int = rank) -> None:
            narrow.take(rank)
            order.append((rank, number))
            narrow.give()

        threads.submit(compute)
        until(lambda number=number: waiting(narrow) == number + 1, "it waits")
    narrow.give()
    until(lambda: narrow._free == 1, "all have had the lane")
    assert order == [(0, 4), (1, 1), (1, 3), (2, 2), (3, 0)]


def test_a_node_that_plays_lets_others_compute_and_waits_for_them_at_its_end(threads):
    narrow, playing, played = Lanes(1), threading.Event(), threading.Event()

    def play() -> None:
        with lanes.taken(narrow):
            with lanes.left():
                playing.set()
                assert played.wait(30)
            assert narrow._free == 0

    far = threads.submit(play)
    assert playing.wait(30)
    with lanes.taken(narrow):
        played.set()
        until(lambda: waiting(narrow) == 1, "the other one has played and waits")
        assert not far.done()
    far.result(30)
    assert narrow._free == 1


def test_a_fault_gives_the_lane_back():
    narrow = Lanes(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), lanes.taken(narrow), lanes.left():
            raise ValueError("broken")
    with pytest.raises(ValueError, match="broken"), lanes.taken(narrow):
        raise ValueError("broken")
    assert narrow._free == 1


def test_nodes_that_play_at_the_same_time_leave_one_lane():
    narrow = Lanes(2)
    with lanes.taken(narrow):
        with lanes.left(), lanes.left():
            assert narrow._free == 2
        assert narrow._free == 1
    with lanes.left():
        assert narrow._free == 2


def test_a_worker_that_ends_leaves_to_others_what_waited_for_a_lane(lab):
    run = started(lab, "four")
    rung()
    leases.stopping.set()

    execution.perform(run.id)

    run.refresh_from_db()
    assert (run.status, run.epoch, rung()) == ("queued", 0, [run.id])
    execution.perform("run_of_nobody")
    assert rung() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("slug", ["meddled", "foreign"])
def test_nodes_that_wait_for_one_another_play_at_once_however_few_the_lanes(project, lab, while_playing, slug):
    many = 2 * lanes.MOST + 1
    all_of_them = threading.Barrier(many, timeout=60)
    while_playing(all_of_them.wait)

    def perform(run_id: str) -> None:
        execution.perform(run_id)
        connection.close()

    with served(project, Lined) as lined, ThreadPoolExecutor(many) as pool:
        runs = [started(lab if slug == "meddled" else lined, slug, number=0) for _ in range(many)]
        list(pool.map(perform, [run.id for run in runs]))

    assert {run.status for run in Run.objects.all()} == {"completed"}
    assert lanes._process._free == lanes.MOST
