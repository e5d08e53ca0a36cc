"""Reads what an external run's agent left behind, and tells what of it never arrived, in the form of messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings

from openvibe.bus import Message
from openvibe.protocol import envelope, subjects, tenancy, workflow
from openvibe.protocol.workflow import Identity
from operators.bridge import ingest
from operators.models import Event
from operators.services import cards

SOURCE = "artifact-backfill"
BATCH = 250
#: No text of so many characters is a card, since JSON writes none of them in more than six bytes.
SHORT = cards.INLINE_LIMIT // 8


def told(lines: Iterable[str], *, events: bool) -> Iterator[tuple[int, str]]:
    """Yield what an agent said, with the number of its line.

    `events` says that the lines are JSON: of these `item.completed` counts, of an item that is an `agent_message`.
    """
    for number, line in enumerate(lines, start=1):
        # A log that was cut short while somebody wrote to it begins with NULs, which no database keeps.
        text = (_said(line) if events else line.rstrip("\r\n")).replace("\0", "\N{REPLACEMENT CHARACTER}")
        if text.strip():
            yield number, text


def missing(
    said: Iterable[tuple[int, str]], identity: Identity, *, project: str, artifact: str, agent: str, began: datetime
) -> Iterator[Message]:
    """Yield a message for each text that the run's thread does not hold yet, one second after the other.

    A text counts as held as often as it stands there, whoever brought it, so that doing this again adds nothing.
    """
    held, prefix = _held(project, identity.uid), settings.OPENVIBE.workflow_prefix[0]
    for position, (number, text) in enumerate(said):
        known = _known_as(text)
        if held[known]:
            held[known] -= 1
            continue
        body = {
            "id": f"backfill:{artifact}:{number}",
            "workflow_uid": identity.uid,
            "workflow_name": identity.name,
            "workflow_namespace": identity.namespace,
            "agent_id": agent,
            "timestamp": (began + timedelta(seconds=position)).isoformat(),
            "role": "assistant",
            "content": text,
            "attrs": {"source": SOURCE, "artifact": artifact, "line": number},
        }
        subject = workflow.subject(identity, agent=agent, kind="message", prefix=prefix)
        yield Message(tenancy.outward(project, subject), envelope.dumps(body))


def fill(file: Path, identity: Identity, *, project: str, agent: str, began: datetime) -> int:
    """Add what a file has and the run's thread has not, and return how many messages that were."""
    added = 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        said = told(lines, events=file.suffix == ".jsonl")
        messages = missing(said, identity, project=project, artifact=name(file), agent=agent, began=began)
        while batch := list(islice(messages, BATCH)):
            ingest.take(batch)
            added += len(batch)
    return added


def name(file: Path) -> str:
    """Return what a file is called, as a text: names of files need not be any."""
    return file.name.encode(errors="replace").decode()


def _held(project: str, uid: str) -> Counter[str]:
    channel = subjects.thread(workflow.run_id(project, uid))
    rows = Event.objects.filter(project_id=project, channel=channel, kind__startswith="agent.")
    contents = rows.values_list("data__content", flat=True)
    return Counter(_known_as(content) for content in contents if isinstance(content, str) or cards.is_pointer(content))


def _known_as(content: Any) -> str:
    """Return what tells a text from every other one: a long one stands there as a card, and goes by its name."""
    if isinstance(content, str):
        return cards.name(content) if len(content) > SHORT else content
    name: str = content["card"]
    return name


def _said(line: str) -> str:
    try:
        found: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        # The last line of a runtime that was killed is cut short.
        return ""
    item = found.get("item") if isinstance(found, dict) and found.get("type") == "item.completed" else None
    if not isinstance(item, dict) or item.get("type", item.get("item_type")) != "agent_message":
        return ""
    text = item.get("text") or item.get("content")
    return text if isinstance(text, str) else ""
