"""A process says, every few seconds, that it lives."""

from __future__ import annotations

import logging
import os
import socket
import threading
from datetime import timedelta

from django.db import close_old_connections, connection
from django.utils import timezone

from operators.link import link
from operators.models import Process
from operators.models.process import BEAT_SECONDS, SILENCE_SECONDS
from operators.services import serving

logger = logging.getLogger(__name__)

#: How long a process that has no bus tries to reach one before it says that it has none, in seconds.
REACH_SECONDS = 2.0


#: The streams that this process is to read and that an administrator of NATS has paused, as it finds them.
paused: set[str] = set()


def announce(kind: Process.Kind) -> threading.Event:
    """Say so from a thread of its own until the returned event is set."""
    ended = threading.Event()
    threading.Thread(target=_beat, args=(kind, ended), name="presence", daemon=True).start()
    return ended


def forget_the_dead() -> None:
    """Forget processes of this host that ended without saying so, before new ones are asked whether they live."""
    here = f"@{socket.gethostname()}:"
    for name in Process.objects.filter(id__contains=here).values_list("id", flat=True):
        if not _lives(int(name.rpartition(":")[2])):
            Process.objects.filter(id=name).delete()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _beat(kind: Process.Kind, ended: threading.Event) -> None:
    name = f"{kind}@{socket.gethostname()}:{os.getpid()}"
    while True:
        try:
            link.reach(REACH_SECONDS)
            _say(name, kind)
        except Exception:
            # Whoever falls silent for good counts as dead, and its operators as served by nobody.
            logger.exception("This process could not say that it lives; it says so again")
            close_old_connections()
        if ended.wait(BEAT_SECONDS):
            Process.objects.filter(id=name).delete()
            return


def _say(name: str, kind: Process.Kind) -> None:
    now = timezone.now()
    seen = {"kind": kind, "seen_at": now, "bus_connected": link.connected, "operators": serving.held()}
    seen["paused"] = sorted(paused) if kind == Process.Kind.BRIDGE else None
    Process.objects.update_or_create(id=name, defaults=seen)
    Process.objects.filter(seen_at__lt=now - timedelta(seconds=10 * SILENCE_SECONDS)).delete()
    if connection.vendor != "sqlite":
        connection.close()
