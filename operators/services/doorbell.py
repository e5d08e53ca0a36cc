"""Rings for a worker. The bell carries an id and nothing else; an unheard ring is repeated by the clock."""

from __future__ import annotations

import logging

from celery import current_app
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)

PERFORM = "operators.perform"
DELIVER = "operators.deliver"
ASK = "operators.ask"
REPLY = "operators.reply"
POST = "operators.post"


def ring(run_id: str) -> None:
    """Tell the workers that a run is queued."""
    _send(PERFORM, run_id)


def deliver(emission_id: str) -> None:
    """Tell the workers that an event for other operators is there."""
    _send(DELIVER, emission_id)


def ask(wait_id: str) -> None:
    """Tell the workers that a run waits for somebody who has to be told: a tool, an agent, another operator."""
    _send(ASK, wait_id)


def reply(run_id: str) -> None:
    """Tell the workers that a run has ended which another one waits for."""
    _send(REPLY, run_id)


def post(delivery_id: str) -> None:
    """Tell the workers that an event is to be told to a subscription."""
    _send(POST, delivery_id)


def _send(task: str, id: str) -> None:
    try:
        current_app.send_task(task, args=[id])
    except (OperationalError, OSError) as error:
        logger.warning("The broker did not take the bell for %s; the clock rings again: %s", id, error)
