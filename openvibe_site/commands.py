"""The command lines of the Python children. All run in the project's folder, with this interpreter."""

from __future__ import annotations

import sys

from openvibe_site import ports
from openvibe_site.env import Environment

PREPARE = (sys.executable, "manage.py", "prepare")
BRIDGE = (sys.executable, "manage.py", "bridge")
BEAT = ("--beat", "--scheduler", "django_celery_beat.schedulers:DatabaseScheduler")


def worker(number: int, environment: Environment) -> tuple[str, ...]:
    """The first worker carries beat, since one clock is enough. Events of the bus replace what gossip would tell."""
    command = (
        *(sys.executable, "-m", "celery", "-A", "openvibe_site", "worker"),
        *("--pool", "threads", "--concurrency", str(environment.worker_threads)),
        *("--loglevel", environment.log_level, "--hostname", f"worker-{number}@%h"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    )
    return (*command, *BEAT) if number == 1 else command


def web(environment: Environment) -> tuple[str, ...]:
    """No HTTP timeout: daphne counts it from the request's start and would cut every event stream."""
    return (
        *(sys.executable, "-m", "daphne", "-b", ports.LOOPBACK, "-p", str(environment.port)),
        *("--websocket_timeout", "-1", "openvibe_site.asgi:application"),
    )
