"""Celery tasks: three lines each, carrying ids only. The database says what is to be done."""

from __future__ import annotations

from celery import shared_task

from operators.services import doorbell, execution


@shared_task(name=doorbell.PERFORM, ignore_result=True, acks_late=True)
def perform(run_id: str) -> None:
    """Play a run that is queued."""
    execution.perform(run_id)
