"""Processes that live, and those that ended without saying so."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from django.utils import timezone

from operators.models import Process
from operators.services import presence


def test_processes_of_this_host_that_are_dead_are_forgotten(db: None) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = socket.gethostname()
    names = [f"worker@{here}:{ended.pid}", f"worker@{here}:{os.getpid()}", f"worker@elsewhere:{ended.pid}"]
    for name in names:
        Process.objects.create(id=name, kind=Process.Kind.WORKER, seen_at=timezone.now())
    presence.forget_the_dead()
    assert set(Process.objects.values_list("id", flat=True)) == set(names[1:])


class Fickle:
    """A kind of process that cannot be told at the first time."""

    def __init__(self) -> None:
        self.told = 0

    def __format__(self, spec: str) -> str:
        return "fickle"

    def __str__(self) -> str:
        self.told += 1
        if self.told == 1:
            raise RuntimeError("not yet")
        return "worker"


@pytest.mark.django_db(transaction=True)
def test_whatever_keeps_a_process_from_saying_that_it_lives_it_says_so_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.05)
    fickle: Any = Fickle()
    ended = presence.announce(fickle)
    try:
        assert _within(10, lambda: Process.objects.filter(id__startswith="fickle@").exists())
    finally:
        ended.set()
        assert _within(10, lambda: not Process.objects.filter(id__startswith="fickle@").exists())


def _within(seconds: float, act: Any) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := act()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(found)
