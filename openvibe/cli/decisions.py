"""`openvibe approve` and `reject`: decide at a run's gate, quoting what the gate shows."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.text import Text

from openvibe import controls
from openvibe.cli import arguments, sentences
from openvibe.cli.arguments import Commands, add_server, add_values, command
from openvibe.cli.connection import connect
from openvibe.errors import OpenVibeError, SetupError


class NothingToDecide(OpenVibeError):
    """No gate of the run is open."""


def add(commands: Commands) -> None:
    """Add the commands."""
    approve = command(commands, "approve", _approve, help="Say yes at a run's gate")
    approve.add_argument("--decision", default="approve", help="another of the gate's decisions")
    add_values(approve, option="--set", help="change a field that the gate lets people edit")
    reject = command(commands, "reject", _reject, help="Say no at a run's gate")
    for parser in (approve, reject):
        parser.add_argument("run", help="the run's id")
        parser.add_argument("--notes", default="", help="why")
        parser.add_argument(
            "--gate", default="", help="the gate's node or id, or whom it is asked of, where several are open"
        )
        add_server(parser)


def _approve(options: argparse.Namespace) -> int:
    return _decide(options, options.decision)


def _reject(options: argparse.Namespace) -> int:
    options.pairs, options.json = [], ""
    return _decide(options, "reject")


def _decide(options: argparse.Namespace, decision: str) -> int:
    server = connect(options.url)
    run = server.run_path(options.run)
    gate = _gate(server.get(run), options.gate)
    schema = gate["schema"].get("properties", {}).get("values", {})
    values = arguments.values(options, schema=schema)
    # The quote is what makes it a decision about what was shown here, should the gate change meanwhile.
    quote = {"wait_id": gate["id"], "version": gate["version"], "payload_sha256": gate["payload_sha256"]}
    body = {"decision": decision, "notes": options.notes, **quote, **({"values": values} if values else {})}
    console = Console()
    console.print(Text(controls.escaped(gate["prompt"])))
    if gate["payload"]:
        console.print(Text(controls.escaped(sentences.shown(gate["payload"])), style="dim"))
    answered = server.post(f"{run}/resume", body)
    console.print(Text.assemble((decision, "bold"), f" at {gate['node']}; the run is {answered['status']}"))
    return 0


def _gate(run: dict[str, Any], name: str) -> dict[str, Any]:
    pending: list[dict[str, Any]] = [
        wait for wait in run["waits"] if wait["kind"] == "approval" and wait["status"] == "pending"
    ]
    found = [wait for wait in pending if not name or name in (wait["id"], wait["node"], wait.get("approver"))]
    if not found:
        what = f"no open gate {name!r}" if name else "no open gate"
        raise NothingToDecide(f"Run {run['run_id']} has {what}; it is {run['status']}.")
    if len(found) > 1:
        names = ", ".join(wait.get("approver") or wait["node"] for wait in found)
        raise SetupError(f"Several gates are open; name one with --gate: {names}.")
    return found[0]
