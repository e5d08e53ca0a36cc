"""`openvibe run` and `runs`: start a run on a server, and list those that there are."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table

from openvibe.cli import arguments, timeline
from openvibe.cli.arguments import Commands, add_server, add_values, command
from openvibe.cli.connection import connect
from openvibe.errors import SetupError


def add(commands: Commands) -> None:
    """Add the commands."""
    run = command(commands, "run", _run, help="Start a run of a workflow")
    run.add_argument("operator", help="the operator's id")
    run.add_argument("workflow", help="the workflow's id, or its trigger's")
    add_values(run, option="--input", help="a value of the input; may be given several times")
    run.add_argument("--sample", action="store_true", help="start with the workflow's sample input")
    run.add_argument("--wait", action="store_true", help="follow the run to its end")
    runs = command(commands, "runs", _runs, help="List runs, newest first")
    runs.add_argument("operator", nargs="?", help="only this operator's runs")
    runs.add_argument("--status", default="", help="only runs of this status, such as waiting")
    runs.add_argument("--limit", type=int, default=20, help="how many (20)")
    for parser in (run, runs):
        add_server(parser)


def _run(options: argparse.Namespace) -> int:
    server = connect(options.url)
    workflow = _workflow(server.operator(options.operator), options.workflow)
    given = arguments.values(options, schema=workflow["input_schema"])
    body = {"trigger": options.workflow, "input": {**(workflow["sample_input"] if options.sample else {}), **given}}
    run_id = server.post(f"/operators/{options.operator}/activate", body)["run_id"]
    print(run_id, flush=True)
    if not options.wait:
        return 0
    return timeline.follow(server, f"/operators/{options.operator}/runs/{run_id}", console=Console())


def _runs(options: argparse.Namespace) -> int:
    server = connect(options.url)
    parameters = {"limit": options.limit, **({"status": options.status} if options.status else {})}
    found: list[dict[str, Any]] = []
    for operator_id in [options.operator] if options.operator else server.operator_ids():
        found += server.get(f"/operators/{operator_id}/runs", **parameters)["results"]
    found.sort(key=lambda run: str(run["created_at"]), reverse=True)
    table = Table("run", "workflow", "status", "started", "seconds", box=None, header_style="bold")
    # A run's id is there to be copied: it is never cut.
    table.columns[0].no_wrap = True
    for run in found[: options.limit]:
        workflow = f"{run['operator_id']}/{run['workflow_id']}"
        started = timeline.clock(run["created_at"], date=True)
        table.add_row(run["run_id"], workflow, run["status"], started, f"{run['metrics']['duration_seconds']:.1f}")
    Console().print(table)
    return 0


def _workflow(operator: dict[str, Any], name: str) -> dict[str, Any]:
    for key in ("trigger_id", "id"):
        for workflow in operator["workflows"]:
            if workflow[key] == name:
                return dict(workflow)
    known = ", ".join(workflow["id"] for workflow in operator["workflows"])
    raise SetupError(f"Operator {operator['id']!r} has no workflow {name!r}; it has: {known}.")
