"""Rings for a worker. The bell carries a run's id and nothing else; an unheard ring is repeated by the clock."""

from __future__ import annotations

import logging

from celery import current_app
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)

PERFORM = "operators.perform"


def ring(run_id: str) -> None:
    """Tell the workers that a run is queued."""
    try:
        current_app.send_task(PERFORM, args=[run_id])
    except (OperationalError, OSError) as error:
        logger.warning("The broker did not take the bell for %s; the clock rings again: %s", run_id, error)
