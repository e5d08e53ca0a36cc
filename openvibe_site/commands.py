"""The command lines of the Python children. All run with this interpreter, in the folder that is served.

`-P` keeps that folder from standing before OpenVibe's own packages; the operators' modules are found in it anyway.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from openvibe_site import ports
from openvibe_site.env import Environment, Web

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
    """Whichever server was chosen: what it does by itself beyond that is switched off, so that pages behave alike."""
    return (*PYTHON, "openvibe_site.launcher", *WEBS[environment.web](environment), "openvibe_site.asgi:application")


def _daphne(environment: Environment) -> tuple[str, ...]:
    # No HTTP timeout: it counts from the request's start and would cut every event stream.
    return ("daphne", "-b", ports.LOOPBACK, "-p", str(environment.port), "--websocket_timeout", "-1")


def _uvicorn(environment: Environment) -> tuple[str, ...]:
    return (
        *("uvicorn", "--host", ports.LOOPBACK, "--port", str(environment.port), "--lifespan", "on"),
        *("--log-level", "warning", "--no-access-log", "--no-proxy-headers"),
        # Compression would be done anew for each of the sockets that are sent the same bytes.
        *("--ws-per-message-deflate", "false"),
        # Streams and sockets have no end of their own; browsers come back.
        *("--timeout-graceful-shutdown", "2"),
    )


WEBS: Mapping[Web, Callable[[Environment], tuple[str, ...]]] = {"daphne": _daphne, "uvicorn": _uvicorn}
