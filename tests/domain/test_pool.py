"""A worker's threads: all there before the first bell."""

from __future__ import annotations

import itertools
import threading

import pytest
from celery.concurrency.thread import TaskPool

from openvibe_site import celery


def test_a_worker_has_all_its_threads_before_the_first_bell_and_they_are_idle() -> None:
    pool = TaskPool(limit=8)
    before = threading.active_count()
    celery._muster(pool)
    assert threading.active_count() == before + 8
    at_once = threading.Barrier(8)
    waiting = [pool.executor.submit(at_once.wait, 10) for _ in range(8)]
    assert sorted(one.result(10) for one in waiting) == list(range(8))
    assert threading.active_count() == before + 8
    pool.on_stop()


def test_where_the_machine_gives_fewer_threads_those_that_there_are_play(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = TaskPool(limit=8)
    start, started = threading.Thread.start, itertools.count()

    def few(thread: threading.Thread) -> None:
        if next(started) >= 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    celery._muster(pool)
    assert "Not all of 8 threads could be started: can't start new thread" in caplog.text
    at_once = threading.Barrier(3)
    waiting = [pool.executor.submit(at_once.wait, 10) for _ in range(9)]
    assert sorted(one.result(30) for one in waiting) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    pool.on_stop()
