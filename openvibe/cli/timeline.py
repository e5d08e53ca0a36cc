"""`openvibe tail`: a run's timeline in the terminal, as it grows, to the run's end."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from openvibe import controls
from openvibe.cli import sentences
from openvibe.cli.arguments import Commands, add_server, command
from openvibe.cli.connection import Server, Unreachable, connect

ENDED = ("completed", "failed", "cancelled")
PAGE = 200
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.1, 1.0, 1.5
#: How long a server may be away, as while it starts afresh, before nobody waits for it any more.
AWAY_SECONDS = 60.0


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "tail", _tail, help="Follow a run's timeline to its end")
    parser.add_argument("run", help="the run's id")
    add_server(parser)


def _tail(options: argparse.Namespace) -> int:
    server = connect(options.url)
    return follow(server, server.run_path(options.run), console=Console())


def follow(server: Server, run: str, *, console: Console) -> int:
    """Show a run's events as they happen, then what it came to; returns 0 if it completed, else 1."""
    with _spinner(console):
        ended = _show(server, run, console=console)
    if ended["status"] == "completed":
        text = controls.escaped(json.dumps(ended["output"], ensure_ascii=False, indent=2))
        console.print(JSONHighlighter()(text), soft_wrap=True)
        return 0
    return 1


def clock(moment: str, *, date: bool = False) -> str:
    """Return a time of the wire as this machine's wall clock shows it."""
    local = datetime.fromisoformat(moment).astimezone()
    return local.strftime("%m-%d %H:%M" if date else "%H:%M:%S")


def _show(server: Server, run: str, *, console: Console) -> dict[str, Any]:
    after, pause = 0, FIRST_PAUSE
    found: dict[str, Any] = {}
    while True:
        events = _patiently(server, f"{run}/events", console=console, after=after, limit=PAGE)["events"]
        for event in events:
            after = event["seq"]
            _print(event, run=run, console=console)
        if events:
            pause = FIRST_PAUSE
            continue
        # Looked at before the last glance at the events, an end leaves none of them unseen.
        if found.get("status") in ENDED:
            return found
        found = _patiently(server, run, console=console)
        if found["status"] not in ENDED:
            time.sleep(pause)
            pause = min(pause * GROWTH, LONGEST_PAUSE)


def _patiently(server: Server, path: str, *, console: Console, **parameters: Any) -> dict[str, Any]:
    """Ask until the server answers: it may be starting afresh."""
    began, told = time.monotonic(), False
    while True:
        try:
            found: dict[str, Any] = server.get(path, **parameters)
            return found
        except Unreachable:
            if time.monotonic() - began > AWAY_SECONDS:
                raise
            if not told:
                told = True
                console.print(Text("         · the server does not answer; trying again", style="dim"))
            time.sleep(LONGEST_PAUSE)


def _print(event: sentences.Event, *, run: str, console: Console) -> None:
    console.print(
        Text.assemble((f"{clock(event['timestamp'])} ", "dim"), sentences.line(event)), soft_wrap=True, highlight=False
    )
    if event["type"] == "gate.opened":
        run_id = run.rpartition("/")[2]
        console.print(Text(f"           openvibe approve {run_id}   or   openvibe reject {run_id}", style="dim"))


def _spinner(console: Console) -> AbstractContextManager[object]:
    return console.status("following; Ctrl-C leaves the run alone") if console.is_terminal else nullcontext()
