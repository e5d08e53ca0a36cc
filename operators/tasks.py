"""Celery tasks: three lines each, carrying ids only. The database says what is to be done."""

from __future__ import annotations

from celery import shared_task

from operators.services import deliveries, doorbell, errands, execution, notices, recalls, subscriptions


@shared_task(name=doorbell.PERFORM, ignore_result=True, acks_late=True)
def perform(run_id: str) -> None:
    """Play a run that is queued."""
    execution.perform(run_id)


@shared_task(name=doorbell.DELIVER, ignore_result=True, acks_late=True)
def deliver(emission_id: str) -> None:
    """Start what listens to an emitted event."""
    deliveries.deliver(emission_id)


@shared_task(name=doorbell.ASK, ignore_result=True, acks_late=True)
def ask(wait_id: str) -> None:
    """Tell whoever is to answer a wait."""
    deliveries.ask(wait_id)


@shared_task(name=doorbell.REPLY, ignore_result=True, acks_late=True)
def reply(run_id: str) -> None:
    """Hand the end of a run to the run that waits for it."""
    deliveries.reply(run_id)


@shared_task(name=doorbell.RECALL, ignore_result=True, acks_late=True)
def recall(run_id: str) -> None:
    """Tell those who do something for a run that nobody waits for it any more."""
    recalls.recall_all(run_id)


@shared_task(name=doorbell.GATHER, ignore_result=True, acks_late=True)
def gather(errand_id: str) -> None:
    """Look how far an errand has come."""
    errands.look(errand_id)


@shared_task(name=doorbell.POST, ignore_result=True, acks_late=True)
def post(delivery_id: str) -> None:
    """Tell an event to a subscription."""
    subscriptions.post(int(delivery_id))


@shared_task(name=doorbell.NOTIFY, ignore_result=True, acks_late=True)
def notify(notice_id: str) -> None:
    """Hand a notice to the bus."""
    notices.send(int(notice_id))
