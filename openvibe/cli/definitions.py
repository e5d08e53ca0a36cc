"""`openvibe list`, `info` and `summary`: what operators there are, read from their code or from a server."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openvibe import controls, sources
from openvibe.cli import arguments
from openvibe.cli.arguments import Commands, add_server, add_sources, command
from openvibe.cli.connection import connect
from openvibe.errors import SetupError
from openvibe.registry import Registry
from openvibe.specs import OperatorSpec, WorkflowSpec

#: An operator as `GET /v1/operators/<id>` tells it.
Operator = dict[str, Any]


def add(commands: Commands) -> None:
    """Add the commands."""
    listing = command(commands, "list", _list, help="List operators and their workflows")
    info = command(commands, "info", _info, help="Describe one operator: its workflows, triggers and nodes")
    info.add_argument("operator", help="the operator's id")
    summary = command(commands, "summary", _summary, help="Count operators, workflows, triggers and nodes")
    for parser in (listing, info, summary):
        add_sources(parser)
        add_server(parser, optional=True)


def _list(options: argparse.Namespace) -> int:
    table = Table("operator", "workflow", "trigger", "nodes", box=None, header_style="bold")
    for operator in _operators(options):
        for position, workflow in enumerate(operator["workflows"]):
            name = operator["id"] if position == 0 else ""
            table.add_row(
                name, workflow["id"], Text(controls.escaped(workflow["trigger"])), str(len(workflow["nodes"]))
            )
    Console().print(table)
    return 0


def _info(options: argparse.Namespace) -> int:
    console = Console()
    operator = _one(options)
    console.print(Text.assemble((controls.escaped(operator["name"]), "bold"), f" ({operator['id']})"))
    if operator["description"]:
        console.print(Text(controls.escaped(operator["description"])))
    for workflow in operator["workflows"]:
        console.print()
        console.print(Text.assemble((workflow["id"], "bold"), f"  {controls.escaped(workflow['description'])}"))
        _tell(console, "trigger", workflow["trigger"])
        for event in workflow.get("listens", ()):
            _tell(console, "listens", event)
        for capability in workflow.get("capabilities", ()):
            _tell(console, "answers", capability)
        _tell(console, "nodes", " → ".join(_named(node) for node in workflow["nodes"]))
        _tell(console, "sample", json.dumps(workflow["sample_input"], ensure_ascii=False))
    return 0


def _summary(options: argparse.Namespace) -> int:
    operators = _operators(options)
    workflows = [workflow for operator in operators for workflow in operator["workflows"]]
    nodes = sum(len(workflow["nodes"]) for workflow in workflows)
    # Every workflow has one trigger; what else starts it is counted by itself.
    counts = {"operator": len(operators), "workflow": len(workflows), "trigger": len(workflows), "node": nodes}
    print(", ".join(_counted(number, word) for word, number in counts.items()))
    if any("listens" in workflow for workflow in workflows):
        listens = sum(len(workflow["listens"]) for workflow in workflows)
        answers = {name for workflow in workflows for name in workflow["capabilities"]}
        print(f"{_counted(listens, 'subscription')}, {_counted(len(answers), 'capability', 'capabilities')}")
    return 0


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _operators(options: argparse.Namespace) -> list[Operator]:
    if not options.url:
        registry = Registry()
        for definition in sources.operators(arguments.sources(options), only=options.operators):
            registry.add(definition)
        return [_told(definition.spec) for definition in registry]
    server = connect(options.url)
    known = server.operator_ids()
    if lacking := [name for name in options.operators if name not in known]:
        raise SetupError(f"There is no operator {lacking[0]!r} at {server.url}; there is: {', '.join(known)}.")
    return [server.operator(name) for name in known if not options.operators or name in options.operators]


def _one(options: argparse.Namespace) -> Operator:
    operators = {operator["id"]: operator for operator in _operators(options)}
    if options.operator not in operators:
        raise SetupError(f"There is no operator {options.operator!r}; there is: {', '.join(operators)}.")
    return operators[options.operator]


def _told(spec: OperatorSpec) -> Operator:
    workflows = [_workflow(workflow) for workflow in spec.workflows]
    return {"id": spec.id, "name": spec.name, "description": spec.description, "workflows": workflows}


def _workflow(spec: WorkflowSpec) -> dict[str, Any]:
    return {
        "id": spec.id,
        "description": spec.description,
        "trigger": spec.trigger.text,
        "nodes": [{"id": node.id, "kind": node.kind} for node in spec.nodes],
        "sample_input": spec.sample_input,
        "listens": [listen.event for listen in spec.listens],
        "capabilities": list(spec.capabilities),
    }


def _named(node: dict[str, Any]) -> str:
    return str(node["id"]) if node["kind"] == "logic" else f"{node['id']} ({node['kind']})"


def _tell(console: Console, label: str, text: str) -> None:
    # Unbroken, so that a sample can be copied.
    console.print(Text.assemble((f"  {label:<8}", "dim"), controls.escaped(text)), soft_wrap=True)
