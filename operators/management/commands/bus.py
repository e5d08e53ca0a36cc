"""`manage.py bus check|apply|yaml`: the streams, durable readers and buckets that we need, on NATS and as YAML."""

from __future__ import annotations

import asyncio
import dataclasses
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from openvibe.errors import SetupError
from operators.bridge import crds, furnishing
from operators.bridge.differences import Difference


class Command(BaseCommand):
    """Compares the server with the table, makes it so, or writes the table as resources for Kubernetes."""

    requires_system_checks = []
    help = "Compare NATS with the streams, readers and buckets needed (check), make it so (apply), write YAML (yaml)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the act and the form of what is told."""
        parser.add_argument("act", choices=["check", "apply", "yaml"])
        parser.add_argument("--json", action="store_true", help="tell differences as JSON")
        parser.add_argument("--folder", type=Path, default=None, help="yaml: write files here instead of printing them")

    def handle(self, *args: Any, act: Any, json: bool, folder: Path | None, **options: Any) -> None:
        """Do it. The exit status is 1 if something is left that is not as it should be."""
        if act == "yaml":
            self._write(folder)
            return
        if settings.BUS != "nats":
            raise CommandError(
                f"OPENVIBE_BUS is {settings.BUS!r}: only NATS has streams to compare; leave it out for NATS"
            )
        found = _looked(act)
        if json:
            self.stdout.write(orjson.dumps([dataclasses.asdict(item) for item in found]).decode())
        else:
            self._tell(found, act)
        left = [item for item in found if act == "check" or item.state == "fixed"]
        if left:
            raise CommandError(f"{len(left)} differences between NATS and what OpenVibe needs", returncode=1)

    def _tell(self, found: Sequence[Difference], act: str) -> None:
        for item in found:
            done = {"missing": "made", "different": "changed"}.get(item.state, "not changed")
            self.stdout.write(f"{item} → {done}" if act == "apply" else str(item))
        if not found:
            self.stdout.write("NATS has what OpenVibe needs")

    def _write(self, folder: Path | None) -> None:
        for name, text in files().items():
            if folder is None:
                self.stdout.write(text)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")


def files() -> dict[str, str]:
    """Return the YAML files by their names; they tell of what this server, as it is set, needs."""
    needed = furnishing.table()
    return {
        "streams.yaml": crds.text([crds.stream(row) for row in needed.streams]),
        "consumers.yaml": crds.text([crds.consumer(row) for row in needed.consumers]),
    }


def _looked(act: furnishing.Act) -> list[Difference]:
    try:
        return asyncio.run(furnishing.settle(act, furnishing.table()))
    except furnishing.AWAY as error:
        access = furnishing.access()
        reason = access.explained(error) if str(error) else type(error).__name__
        raise CommandError(f"NATS does not answer at {access.shown}: {reason}", returncode=2) from error
    except SetupError as error:
        raise CommandError(str(error), returncode=2) from error
