"""Processes that should always run: started again, ended in order, and told of."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable

from openvibe_site import children, crew
from openvibe_site.children import Child
from openvibe_site.crew import Crew
from openvibe_site.home import Home
from tests.unit.processes import alive, eventually, needs_proc, pid_of


def test_a_killed_child_comes_back_with_one_line(child: Callable[..., Child], said: list[str]) -> None:
    sleeper = child("sleep", "1000")
    sleeper.start()
    first = pid_of(sleeper)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: sleeper.tend() and sleeper.pid)
    assert pid_of(sleeper) != first
    assert said == ["worker-1 ended with -9; starting it again"]


def test_a_child_that_keeps_dying_is_started_less_and_less_often(child: Callable[..., Child]) -> None:
    failing = child("false")
    failing.start()
    pauses = []
    for _ in range(3):
        eventually(lambda: failing.process is None or (failing.tend() and failing.process is None))
        pauses.append(failing.restart_at - time.monotonic())
        failing.start()
    assert 0 < pauses[0] <= 0.2 < pauses[1] <= 0.4 < pauses[2] <= 0.8


def test_a_child_that_lived_long_comes_back_at_once(child: Callable[..., Child]) -> None:
    sleeper = child("sleep", "1000")
    sleeper.start()
    sleeper.next_pause = children.LONGEST_PAUSE
    sleeper.started_at -= children.STEADY_AFTER
    os.kill(pid_of(sleeper), signal.SIGKILL)
    eventually(sleeper.tend)
    assert sleeper.restart_at - time.monotonic() <= children.FIRST_PAUSE


def test_a_command_that_does_not_exist_is_tried_again(child: Callable[..., Child], said: list[str]) -> None:
    missing = child("/no/such/program")
    missing.start()
    eventually(missing.tend)
    assert [line.startswith("worker-1 cannot start") for line in said] == [True, True]


@needs_proc
def test_what_a_dead_child_had_started_ends_too(child: Callable[..., Child], home: Home) -> None:
    parent = child("sh", "-c", "sleep 1000 & echo $!; wait")
    parent.start()
    eventually(lambda: (home.logs / "worker-1.log").read_text().endswith("\n"))
    grandchild = int((home.logs / "worker-1.log").read_text())
    os.kill(pid_of(parent), signal.SIGKILL)
    eventually(parent.tend)
    eventually(lambda: not alive(grandchild))


def test_ending_lets_go_in_order_and_kills_who_does_not_listen(child: Callable[..., Child], home: Home) -> None:
    polite = child("sleep", "1000", name="polite")
    stubborn = child("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done", name="stubborn")
    pids = []
    for each in (polite, stubborn):
        each.start()
        pids.append(pid_of(each))
    eventually(lambda: (home.logs / "stubborn.log").read_text() == "ready\n")
    began = time.monotonic()
    children.end([polite, stubborn], grace=0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert not any(alive(pid) for pid in pids)


def test_a_hurried_end_does_not_wait(child: Callable[..., Child], home: Home) -> None:
    stubborn = child("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    stubborn.start()
    eventually(lambda: (home.logs / "worker-1.log").read_text() == "ready\n")
    began = time.monotonic()
    children.end([stubborn], grace=60, hurried=lambda: True)
    assert time.monotonic() - began < 5


@needs_proc
def test_leftovers_of_a_killed_supervisor_end_and_strangers_live(
    child: Callable[..., Child], home: Home, said: list[str]
) -> None:
    ours, stranger = child("sleep", "1000"), child("sleep", "1000", name="web", mark="something else")
    earlier = Crew(home.children)
    earlier.start(ours)
    earlier.start(stranger)
    assert json.loads(home.children.read_text()) == {"worker-1": ours.pid, "web": stranger.pid}
    crew.end_leftovers(home, say=said.append)
    assert not alive(pid_of(ours))
    assert alive(pid_of(stranger))
    assert said == ["an earlier OpenVibe left worker-1 running; ending them first"]


def test_a_child_that_crashes_while_it_ends_is_told_of(child: Callable[..., Child], said: list[str]) -> None:
    one = child(sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGABRT)")
    one.start()
    eventually(one.gone)
    assert said == ["worker-1 did not end in order: SIGABRT"]


def test_a_child_that_was_asked_to_end_and_does_is_not_told_of(child: Callable[..., Child], said: list[str]) -> None:
    one = child(sys.executable, "-c", "import time; time.sleep(600)")
    one.start()
    one.terminate()
    eventually(one.gone)
    assert said == []
