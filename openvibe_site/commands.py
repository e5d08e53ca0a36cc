"""The command lines of the Python children. All run with this interpreter, in the folder that is served.

`-P` keeps that folder from standing before OpenVibe's own packages; the operators' modules are found in it anyway.
"""

from __future__ import annotations

import sys

from openvibe_site import ports
from openvibe_site.env import Environment

PYTHON = (sys.executable, "-P", "-m")
PREPARE = (*PYTHON, "openvibe_site", "prepare")
BRIDGE = (*PYTHON, "openvibe_site", "bridge")
BEAT = ("--beat", "--scheduler", "operators.beat:BeatScheduler")


def worker(number: int, environment: Environment) -> tuple[str, ...]:
    """The first worker carries beat, since one clock is enough. Events of the bus replace what gossip would tell."""
    command = (
        *(*PYTHON, "openvibe_site.launcher", "celery", "-A", "openvibe_site", "worker"),
        *("--pool", "threads", "--concurrency", str(environment.worker_threads)),
        *("--loglevel", environment.log_level, "--hostname", f"worker-{number}@%h"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    )
    return (*command, *BEAT) if number == 1 and environment.scheduler == "celery" else command


def web(environment: Environment) -> tuple[str, ...]:
    """No HTTP timeout: daphne counts it from the request's start and would cut every event stream."""
    return (
        *(*PYTHON, "openvibe_site.launcher", "daphne", "-b", ports.LOOPBACK, "-p", str(environment.port)),
        *("--websocket_timeout", "-1", "openvibe_site.asgi:application"),
    )
