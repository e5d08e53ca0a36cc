"""Celery: the embedded broker by default, whatever `CELERY_BROKER_URL` names otherwise."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import celery
from celery.concurrency.thread import TaskPool
from celery.signals import celeryd_init, worker_ready, worker_shutdown, worker_shutting_down

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "openvibe_site.settings")

from django.conf import settings

from openvibe_site import spool

logger = logging.getLogger(__name__)
app = celery.Celery("openvibe")

#: Whoever rings for a worker does not wait for a broker that is away: the clock rings again.
IMPATIENT = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
#: What a worker has taken from Redis it keeps in mind only: a bell that dies with it is rung again by the clock, long
#: before kombu would hand it to another worker, and writing it down there cost a quarter of a worker. And bells have no
#: priorities, for each of which kombu would listen at a list of its own.
FORGETFUL = {"ack_emulation": False, "priority_steps": [0]}
REDIS_SCHEMES = ("redis", "rediss", "sentinel")


def _broker() -> dict[str, Any]:
    chosen = settings.OPENVIBE
    if chosen.broker_url:
        scheme = chosen.broker_url.partition(":")[0]
        options = IMPATIENT | (FORGETFUL if scheme in REDIS_SCHEMES else {})
        return {"broker_url": chosen.broker_url, "broker_transport_options": options}
    queue = chosen.home / "queue"
    queue.mkdir(parents=True, exist_ok=True)
    return {
        "broker_url": f"{spool.SCHEME}://localhost",
        "broker_transport_options": {
            "data_folder_in": str(queue),
            "data_folder_out": str(queue),
            "control_folder": str(queue / "control"),
            "polling_interval": 0.02,
        },
    }


app.conf.update(
    **_broker(),
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_queue="runs",
    task_publish_retry=False,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    timezone=settings.TIME_ZONE,
    imports=["operators.tasks", "operators.beat"],
)


#: How long a worker's thread may keep the interpreter, in seconds. Threads that wait for it look that often whether it
#: is time: hundreds of them, each a run, would look for nothing at Python's own 5 ms.
SWITCH = 0.02
#: How long a worker that ends by itself may take, in seconds, until its runs have come to their next boundary.
DRAIN = 60.0


@celeryd_init.connect
def _listen(**_: Any) -> None:
    """Hear the bells of the operators that this worker holds; `-Q` says otherwise."""
    from operators.services import doorbell, serving

    sys.setswitchinterval(SWITCH)
    # Chosen by name: a queue in which this process merely rings is none that it hears.
    app.amqp.queues.select(doorbell.queues(serving.held()))


#: Ends this worker's saying that it lives.
_absent: threading.Event | None = None


@worker_ready.connect
def _appear(sender: Any, **_: Any) -> None:
    from operators.models import Process
    from operators.services import presence

    global _absent
    if isinstance(sender.controller.pool, TaskPool):
        _muster(sender.controller.pool)
    _absent = presence.announce(Process.Kind.WORKER)
    threading.Thread(target=_end_with_strays, name="strays-watch", daemon=True).start()
    if beat := getattr(sender.controller, "beat", None):
        threading.Thread(target=_end_with, args=(beat,), name="beat-watch", daemon=True).start()


def _muster(pool: TaskPool) -> None:
    """Have all threads of a pool before the first bell.

    Whoever starts a thread waits until it runs: in the midst of hundreds that play, and so for each new run anew.
    """
    full = threading.Barrier(pool.limit + 1)
    try:
        for _ in range(pool.limit):
            pool.executor.submit(full.wait)
        full.wait()
    except RuntimeError as error:
        # Those that there are must not wait for ever for those that the machine does not give, and no bell asks again.
        pool.executor._max_workers = len(pool.executor._threads)
        full.abort()
        logger.warning("Not all of %d threads could be started: %s", pool.limit, error)


def _end_with(beat: Any) -> None:
    """End this worker in order when its beat has died: nobody else would start it again, and no cron would fire."""
    from operators.services import leases

    beat.join()
    if not leases.stopping.is_set():
        logger.error("Beat has died; this worker ends, so that its supervisor starts both again")
        os.kill(os.getpid(), signal.SIGTERM)


def _end_with_strays() -> None:
    """End this worker in order when it holds as many strays as it may: only with their process do they end."""
    from operators.services.strays import strays

    strays.enough.wait()
    logger.error("This worker holds too many threads that nobody can stop; it ends, so that its supervisor starts it")
    os.kill(os.getpid(), signal.SIGTERM)
    # What does not come to a boundary by then is played elsewhere when its lease is over.
    time.sleep(DRAIN)
    os._exit(1)


@worker_shutdown.connect
def _disappear(**_: Any) -> None:
    from operators import definitions

    if _absent is not None:
        _absent.set()
    definitions.tracer().close(timeout=2)


@worker_shutting_down.connect
def _hand_back(**_: Any) -> None:
    from operators.services import leases

    leases.stopping.set()
