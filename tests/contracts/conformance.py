"""Runs LangGraph's public conformance suite over the rows of the database that `DATABASE_URL` names.

As a program it migrates that database and prints one JSON object, `{way: {capability: outcome}}`. A test calls
`outcomes()` in its own process, on whatever database Django has there.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer

from openvibe.graph.saver import RowSaver

CAPABILITIES = sorted(item.value for item in ALL_CAPABILITIES)
WAYS: dict[str, dict[str, bool]] = {"direct": {}, "collecting": {"collect": True}}


def outcomes(way: str) -> dict[str, Any]:
    """Run the suite; what a collecting saver holds at the end of a capability is stored and read back."""
    from operators.models.checkpoint import DatabaseRows

    stored: list[bool] = []

    async def savers() -> AsyncIterator[BaseCheckpointSaver]:
        saver = RowSaver(DatabaseRows(), **WAYS[way])
        yield saver
        if WAYS[way]:
            stored.append(await asyncio.to_thread(_stored, saver))

    # Made by hand, because the suite's decorator keeps a registry for the whole process.
    report = asyncio.run(validate(RegisteredCheckpointer(name=way, factory=savers)))
    return {**report.to_dict()["results"], "stored": stored}


def _stored(saver: RowSaver) -> bool:
    """Store what was collected, and tell whether a fresh saver reads the same."""
    from operators.models.checkpoint import DatabaseRows

    rows = DatabaseRows()
    before = sorted(map(repr, saver.list(None)))
    rows.save(*saver.collected())
    after = sorted(map(repr, RowSaver(rows).list(None)))
    rows.release()
    return before == after


def main() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "openvibe_site.settings")
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0, interactive=False)
    print(json.dumps({"vendor": connection.vendor, **{way: outcomes(way) for way in WAYS}}))


if __name__ == "__main__":
    main()
