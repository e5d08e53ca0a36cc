"""Processes that live, and those that ended without saying so."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

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
