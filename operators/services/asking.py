"""Asks operators of other servers over the bus, and takes in what they answer.

The answer is awaited twice: on the connection, for whoever answers at once, and on a subject that a stream keeps, for a
run that takes its time. Whichever comes first settles the wait.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from django.conf import settings
from django.utils import timezone

from openvibe.bus import Message
from openvibe.errors import BusError, NoResponders, RequestTimeout
from openvibe.protocol import envelope, headers, nesting, requests
from operators.errors import DomainError
from operators.link import link
from operators.models import Run, Wait
from operators.services import cards, servers, waits
from operators.threads import aside

logger = logging.getLogger(__name__)

#: How long a caller waits for the first answer, in seconds; whoever is slower is heard all the same.
PATIENCE = 5.0
#: How long a server of ours may need for that; more than `PATIENCE`, so that what it then undoes has been done.
OURS_SECONDS = 6.0
STILL_RUNNING = "504"


def elsewhere(wait: Wait) -> bool:
    """Ask whoever serves a capability that no operator of ours offers; False if that has to be tried again."""
    if not link.connected:
        return False
    try:
        link.submit(_asked(wait)).result(PATIENCE)
    except TimeoutError:
        return True
    except NoResponders:
        return _nobody(wait)
    except BusError as error:
        logger.info("%s is not asked yet: %s", wait.payload["operator"], error)
        return False
    return True


def settle(wait: Wait, answer: Any) -> None:
    """Take in an answer: what our servers tell of a run, an object with `error`, or else the result itself."""
    by = answerer(wait)
    if not isinstance(answer, Mapping) or "status" not in answer or "run_id" not in answer:
        told = isinstance(answer, Mapping) and set(answer) <= {"result", "error"} and len(answer) == 1
        _settle(wait, **(answer if told else {"result": answer}), by=by)
    elif answer["status"] == Run.Status.COMPLETED:
        _settle(wait, result=answer.get("result"), by=by)
    elif answer["status"] not in Run.ACTIVE:
        error = f"run {answer['run_id']} {answer['status']}: {answer.get('error') or 'without a reason'}"
        _settle(wait, error=error, by=by)


def begun(answer: Any) -> bool:
    """Tell whether an answer says no more than that a run of one of our servers goes about it."""
    return isinstance(answer, Mapping) and "run_id" in answer and answer.get("status") in Run.ACTIVE


def answerer(wait: Wait) -> str:
    """Return who answers a request."""
    return f"{wait.payload['operator']}.{wait.payload['capability']}"[:200]


async def _asked(wait: Wait) -> None:
    asked, run = wait.payload, wait.run
    subject = requests.subject(run.project_id, asked["operator"], asked["capability"])
    seconds = await aside(_seconds, wait)
    stamps = headers.stamped(
        "request",
        message_id=envelope.message_id(subject, wait.id),
        traceparent=run.traceparent,
        depth=run.depth,
        passed_on=run.passed_on,
    )
    stamps |= {
        requests.ANSWER_TO: requests.answer(run.project_id, run.id, wait.id),
        requests.SERVER: settings.OPENVIBE.server,
    }
    payload = await aside(cards.carried, run.project_id, asked["payload"])
    body = envelope.dumps({"version": envelope.VERSION, "id": wait.id, "type": "request", "payload": payload})
    bus = await link.bus()
    try:
        answer = await bus.request(subject, body, timeout=seconds, headers=stamps)
    except RequestTimeout as error:
        await aside(_silent, wait, str(error))
    except NoResponders:
        raise
    except BusError:
        # Nobody may be there any more to be told; the clock asks again.
        await aside(_unsent, wait)
        raise
    else:
        await aside(_answered, wait, answer)


def _seconds(wait: Wait) -> float:
    """How long the first answer may take: a server of ours says at once that it has begun, others do the work first."""
    if _offered(wait):
        return OURS_SECONDS
    if wait.deadline is None:
        return requests.DEFAULT_SECONDS
    return min(max((wait.deadline - timezone.now()).total_seconds(), 1.0), requests.MOST_SECONDS)


def _silent(wait: Wait, error: str) -> None:
    if _offered(wait):
        # It ended with the question in its hands; asked again, it goes on with the run that it may have begun.
        _unsent(wait)
    else:
        _settle(wait, error=error)


def _answered(wait: Wait, message: Message) -> None:
    error = message.error
    if error is not None:
        # A run that is still playing answers on the subject that is kept.
        if error.code != STILL_RUNNING:
            _settle(wait, error=str(error))
        return
    try:
        answer = orjson.loads(message.data)
    except orjson.JSONDecodeError as fault:
        _settle(wait, error=f"the answer is no JSON: {fault}")
        return
    if nesting.deep(answer):
        # It could not be written down, and the question would be asked again for ever.
        _settle(wait, error=f"the answer {nesting.FAULT}")
    else:
        settle(wait, answer)


def _nobody(wait: Wait) -> bool:
    asked = wait.payload
    if _offered(wait):
        # It was there a moment ago, and may only be starting again.
        return False
    _settle(wait, error=f"nobody offers {asked['capability']!r} of {asked['operator']!r}, here or on another server")
    return True


def _offered(wait: Wait) -> bool:
    return servers.offered(wait.run.project_id, wait.payload["operator"], wait.payload["capability"])


def _settle(wait: Wait, *, result: Any = None, error: Any = "", by: str = "") -> None:
    try:
        waits.settle(wait, result=result, error=str(error or ""), by=by)
    except DomainError as reason:
        logger.info("The answer to %s came too late: %s", wait.id, reason)


def _unsent(wait: Wait) -> None:
    Wait.objects.pending().filter(id=wait.id).update(sent_at=None)
