"""Writes what agents said into the database: each message once, in the order of arrival, whole batches at a time."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from datetime import datetime

from django.db import connection, transaction
from django.utils import timezone

from openvibe.bus import Message
from openvibe.protocol import tenancy
from openvibe.protocol.envelope import Malformed
from operators.bridge import dialects, letters, postings, suspects, tries
from operators.bridge.letters import AWAY, Refusal
from operators.bridge.postings import Heard
from operators.models import DeadLetter
from operators.services import inbox
from operators.services.inbox import Inbound

logger = logging.getLogger(__name__)


def take(messages: Sequence[Message]) -> Sequence[Message]:
    """Keep messages, each as an event or as a dead letter, so that they may be acknowledged.

    Returns those at which we failed: they are to be delivered again, and become dead letters in the end.
    """
    often, others = suspects.parted(messages)
    try:
        # What came often is the older.
        return [*(again for message in often for again in suspects.take(message, _taken)), *_taken(others)]
    finally:
        if connection.vendor != "sqlite":
            connection.close()


def _taken(messages: Sequence[Message]) -> Sequence[Message]:
    try:
        _take(messages)
    except AWAY:
        raise
    except Exception as error:
        if len(messages) > 1:
            # One of them is to blame, and must not hold the others up.
            return [again for message in messages for again in _taken([message])]
        message = messages[0]
        failures = tries.failed(message)
        logger.exception("A message on %s could not be dealt with (time %s)", message.subject, failures)
        if failures < tries.MOST:
            return messages
        letters.bury(message, f"It failed {failures} times, at last so: {type(error).__name__}: {error}")
    tries.forget(messages)
    return []


def _take(messages: Sequence[Message]) -> None:
    heard, inbound, refused = _read(messages)
    letters.bury_all(refused)
    postings.keep(heard)
    _receive(inbound)


@transaction.atomic
def replay(letter: DeadLetter) -> str:
    """Deal with a dead letter's message once more. Returns why it is not what it should be now, if so: it stays."""
    if not dialects.known(tenancy.inward(letter.subject)[1]):
        return f"What comes on {letter.subject} is not read again; it is to be sent, or written, anew"
    _replayed(letter, timezone.now())
    try:
        with transaction.atomic():
            _take([Message(letter.subject, bytes(letter.body), letter.headers)])
    except AWAY:
        raise
    except Exception as error:
        logger.exception("%s could not be dealt with", letter)
        _replayed(letter, None, reason=f"It failed when it was read again: {type(error).__name__}: {error}")
    letter.refresh_from_db()
    return "" if letter.replayed_at else letter.reason


def _replayed(letter: DeadLetter, at: datetime | None, **told: str) -> None:
    DeadLetter.objects.filter(pk=letter.pk).update(replayed_at=at, **told)


def _read(messages: Sequence[Message]) -> tuple[list[Heard], list[tuple[Message, Inbound]], list[Refusal]]:
    heard: list[Heard] = []
    inbound: list[tuple[Message, Inbound]] = []
    refused: list[Refusal] = []
    for message in messages:
        try:
            project, subject = tenancy.inward(message.subject)
            inward = message if subject == message.subject else dataclasses.replace(message, subject=subject)
            found = dialects.read(inward, project=project)
        except Malformed as error:
            refused.append(Refusal(message, str(error), error.code, malformed=True))
        except Exception as error:
            logger.exception("A message on %s could not be read", message.subject)
            refused.append(Refusal(message, f"It cannot be read: {type(error).__name__}: {error}"))
        else:
            for item in found:
                if isinstance(item, Inbound):
                    inbound.append((message, item))
                else:
                    heard.append((message, item))
    return heard, inbound, refused


def _receive(heard: Sequence[tuple[Message, Inbound]]) -> None:
    """Keep what may change a run, then apply it; what cannot be applied now is applied by the clock."""
    known = []
    for message, item in heard:
        try:
            if inbox.concerns(item):
                known.append((message, item))
        except Malformed as error:
            letters.bury(message, str(error), code=error.code, malformed=item.type == inbox.COMMAND)
    for item_id in _received(known):
        try:
            inbox.apply(item_id)
        except AWAY:
            raise
        except Exception:
            logger.exception("Inbox item %s could not be applied; the clock tries again", item_id)


def _received(heard: Sequence[tuple[Message, Inbound]]) -> list[int]:
    """Write a group; if the database refuses it, one by one, so that a message it cannot take costs no other."""
    if not heard:
        return []
    try:
        with transaction.atomic():
            return inbox.receive([item for _, item in heard])
    except AWAY:
        raise
    except Exception as error:
        if len(heard) > 1:
            return [item_id for one in heard for item_id in _received([one])]
        letters.bury(heard[0][0], f"It cannot be kept: {type(error).__name__}: {error}")
        return []
