"""`manage.py bridge`: the process that reads NATS and carries the clock."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from django.core.management.base import BaseCommand

from operators.bridge import process


class Command(BaseCommand):
    """Runs the bridge until it is told to end."""

    help = "Read NATS into the database, and fire what is due."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        asyncio.run(_main())


async def _main() -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await process.serve(ended)
