"""Rings for a worker. The bell carries an id and nothing else; an unheard ring is repeated by the clock.

The bells of an operator's runs hang in a queue of its own, which the workers of the servers that hold its code hear.
What brings no code, and what belongs to no operator, hangs in the shared queue, which all workers hear.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from celery import current_app
from kombu.exceptions import OperationalError

from operators.models import Operator

logger = logging.getLogger(__name__)

PERFORM = "operators.perform"
DELIVER = "operators.deliver"
ASK = "operators.ask"
REPLY = "operators.reply"
POST = "operators.post"
NOTIFY = "operators.notify"
RECALL = "operators.recall"
GATHER = "operators.gather"

#: The queue that all workers hear.
SHARED = "runs"


def queue(operator: Operator) -> str:
    """Return the queue in which an operator's bells hang."""
    return SHARED if operator.source else f"{SHARED}-{operator.slug}"


def queues(held: Iterable[str]) -> list[str]:
    """Return the queues that a worker hears which holds the code of these operators."""
    return [SHARED, *(f"{SHARED}-{slug}" for slug in held)]


def ring(run_id: str, operator: Operator) -> None:
    """Tell the operator's workers that a run is queued."""
    _send(PERFORM, run_id, queue(operator))


def deliver(emission_id: str, operator: Operator) -> None:
    """Tell the operator's workers that an event of it for other operators is there."""
    _send(DELIVER, emission_id, queue(operator))


def ask(wait_id: str, operator: Operator) -> None:
    """Tell the operator's workers that a run waits for somebody to be told: a tool, an agent, another operator."""
    _send(ASK, wait_id, queue(operator))


def reply(run_id: str, operator: Operator) -> None:
    """Tell the operator's workers that a run has ended which another one waits for."""
    _send(REPLY, run_id, queue(operator))


def recall(run_id: str, operator: Operator) -> None:
    """Tell the operator's workers that a run does not wait any more for what it has others do."""
    _send(RECALL, run_id, queue(operator))


def gather(errand_id: str) -> None:
    """Tell the workers that a run has ended which somebody has sent on an errand, or that its caller is to be told."""
    _send(GATHER, errand_id, SHARED)


def post(delivery_id: str) -> None:
    """Tell the workers that an event is to be told to a subscription."""
    _send(POST, delivery_id, SHARED)


def notify(notice_id: str) -> None:
    """Tell the workers that those who hear a session are to be told something."""
    _send(NOTIFY, notice_id, SHARED)


def hanging(queue: str) -> int:
    """Return how many bells of a queue no worker has taken yet; none if the broker cannot say."""
    # A connection of its own: one of the pool that a broker's end has closed makes no channel any more.
    with current_app.connection_for_write() as connection:
        try:
            with connection.channel() as channel:
                return int(channel.queue_declare(queue, passive=True).message_count)
        except connection.channel_errors:
            # A queue in which nothing hangs need not be there.
            return 0
        except (*connection.connection_errors, OperationalError, OSError) as error:
            logger.warning("The broker does not say how many bells hang in %s: %s", queue, error)
            return 0


def _send(task: str, id: str, queue: str) -> None:
    try:
        current_app.send_task(task, args=[id], queue=queue)
    except (OperationalError, OSError) as error:
        logger.warning("The broker did not take the bell for %s; the clock rings again: %s", id, error)
