"""A worker's threads: all there before the first bell."""

from __future__ import annotations

import threading

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
