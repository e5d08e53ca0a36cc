"""What a step emits for other operators: the rows that are written with it, and the facts that tell of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from openvibe import canonical, outcomes
from openvibe.events import Event as Fact
from operators.models import Emission, Run


def new(run: Run, found: Sequence[outcomes.Emission], *, now: datetime, again: bool) -> list[Emission]:
    """Return the rows of what a step has emitted; `again` says that the run may have emitted it in an earlier play."""
    rows = [
        Emission(
            id=_id(run, item),
            project_id=run.project_id,
            run=run,
            name=item.name,
            payload=canonical.jsonable(item.payload),
            emitted_at=now,
        )
        for item in found
    ]
    if not (again and rows):
        return rows
    known = set(Emission.objects.filter(id__in=[row.id for row in rows]).values_list("id", flat=True))
    return [row for row in rows if row.id not in known]


def told(emission: Emission) -> Fact:
    """Return the timeline's word for it."""
    return Fact("event.emitted", data={"id": emission.id, "name": emission.name, "payload": emission.payload})


def _id(run: Run, item: outcomes.Emission) -> str:
    return f"emission_{hashlib.sha256(f'{run.id}/{item.source}'.encode()).hexdigest()[:32]}"
