"""Operators from YAML, with the same meaning as decorated classes. Every mistake is told with file, line and path.

A file holds `operators:`, each with `fields` and `workflows`, these with `nodes` in the order of execution. The code of
`logic` nodes stands in `logic_handlers.py` beside it, in functions named `<node>`, `<workflow>_<node>` or
`<operator>_<workflow>_<node>`. A first line `# yaml-language-server: $schema=<address of operators.schema.json>` lets
editors help.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openvibe import yaml_handlers, yaml_nodes, yaml_types
from openvibe.errors import SetupError
from openvibe.fields import Fields
from openvibe.flaws import check_doors
from openvibe.marks import WorkflowMark, spec_of
from openvibe.registry import OperatorDefinition, WorkflowDefinition, assemble
from openvibe.specs import OperatorSpec
from openvibe.subscriptions import Listen
from openvibe.yaml_handlers import Handler
from openvibe.yaml_places import Places
from openvibe.yaml_schema import NODES, PARTS, File, NodePart, OperatorPart, WorkflowPart

SCHEMA_ID = "https://openvibe.dev/schemas/operators.schema.json"
_MOST_PROBLEMS = 5

#: Functions by operator, workflow and node, as `OperatorRuntime.handler` collects them.
Handlers = Mapping[tuple[str, str, str], Handler]
_Path = tuple[str | int, ...]


def load(path: str | os.PathLike[str]) -> list[OperatorDefinition]:
    """Return the operators that a YAML file describes.

    Raises:
        SetupError: the file cannot be read or has a mistake; the message names its place.
    """
    return read(path).definitions()


def read(path: str | os.PathLike[str]) -> Document:
    """Read a file, without putting its operators together yet. Raises `SetupError` as `load` does."""
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} cannot be read: {error}") from error
    return Document(Places(str(path), text), place.resolve().parent)


def parse(text: str, *, name: str = "operators.yaml") -> Document:
    """Read a text that lies beside no files: it may name no prompt files, no tools and no handlers.

    Raises:
        SetupError: it has a mistake.
    """
    return Document(Places(name, text), None)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of an operators file, for editors."""
    told = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, "title": "OpenVibe operators"}
    return {**told, **{key: value for key, value in File.model_json_schema().items() if key != "title"}}


class Document:
    """An operators file that has been read and checked for its shape."""

    def __init__(self, places: Places, folder: Path | None) -> None:
        self._places = places
        self._folder = folder
        self._file = _checked(places)
        self._functions: dict[str, Handler] = {}
        if folder is not None:
            self._functions = self._read_handlers(folder / self._file.handlers)

    def definitions(self, handlers: Handlers | None = None, *, complete: bool = True) -> list[OperatorDefinition]:
        """Put the operators together. Unless the file has to be `complete`, a handler may come later.

        Raises:
            SetupError: something does not fit; the message names its place.
        """
        made = [
            _Operator(self._places, at, part, _Code(self._folder, self._functions, handlers or {}, complete))
            for at, part in enumerate(self._file.operators)
        ]
        return [operator.definition() for operator in made]

    def check_handler(self, operator: str, workflow: str, node: str) -> None:
        """Refuse a handler for what needs none. Raises `SetupError`."""
        known = {
            (part.id, flow.id, item.id)
            for part in self._file.operators
            for flow in part.workflows
            for item in flow.nodes
            if item.type in ("logic", "conditional", "gate")
        }
        if (operator, workflow, node) not in known:
            names = ", ".join(sorted(".".join(name) for name in known if name[0] == operator)) or "none"
            raise SetupError(
                f"{self._places.name}: {operator}.{workflow}.{node} takes no handler; those that do: {names}"
            )

    def _read_handlers(self, path: Path) -> dict[str, Handler]:
        if "handlers" in self._file.model_fields_set and not path.is_file():
            raise self._places.fault(("handlers",), f"there is no file {str(path)!r}")
        try:
            return yaml_handlers.functions(path)
        except ValueError as error:
            raise self._places.fault(("handlers",), str(error)) from error


@dataclass(frozen=True)
class _Code:
    """What stands behind a file: its folder, the functions beside it, and the handlers that a script gave."""

    folder: Path | None
    functions: Mapping[str, Handler]
    handlers: Handlers
    complete: bool


class _Operator:
    """One operator in the making."""

    def __init__(self, places: Places, at: int, part: OperatorPart, code: _Code) -> None:
        self._places, self._part, self._code = places, part, code
        self._path: _Path = ("operators", at)
        self._unwritten: set[str] = set()
        self._fields = Fields(self._owner())

    def definition(self) -> OperatorDefinition:
        part = self._part
        workflows = {flow.id: self._workflow(at, flow) for at, flow in enumerate(part.workflows)}
        for at, flow in enumerate(part.workflows):
            if any(flow.id == other.id for other in part.workflows[:at]):
                raise self._places.fault((*self._path, "workflows", at, "id"), f"{flow.id!r} is used twice")
        where = self._where(self._path)
        check_doors(where, [item.spec for item in workflows.values()])
        spec = spec_of(
            where, OperatorSpec, id=part.id, name=part.name or part.id.replace("_", " ").title(),
            description=part.description.strip(), owner=part.owner,
            budget=part.budget and part.budget.model_dump(),
            workflows=tuple(item.spec for item in workflows.values()),
        )  # fmt: skip
        return OperatorDefinition(spec=spec, workflows=workflows)

    def _owner(self) -> type:
        declared = self._part.fields
        if declared is None:
            return self._inferred()
        types: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        for name, kind in declared.items():
            try:
                types[name] = yaml_types.hint(name, kind)
                has, value = yaml_types.default(kind)
                defaults |= {name: value} if has else {}
                # Alone, so that a default of a wrong type is told with its place.
                Fields(yaml_types.owner(self._part.id, {name: types[name]}, {name: value} if has else {}))
            except (ValueError, SetupError) as error:
                raise self._places.fault((*self._path, "fields", name), str(error)) from error
        return yaml_types.owner(self._part.id, types, defaults)

    def _inferred(self) -> type:
        """Without declared fields there is one for each name that a node writes or reads."""
        written: dict[str, Any] = {}
        named: dict[str, Any] = {}
        for at, flow in enumerate(self._part.workflows):
            for number, node in enumerate(flow.nodes):
                path = (*self._path, "workflows", at, "nodes", number)
                with_place = self._placed(path)
                written |= with_place(yaml_nodes.writes, node, self._handler(flow, node))
                named |= dict.fromkeys(with_place(yaml_nodes.reads, node, self._code.folder), str)
            named |= dict.fromkeys(flow.inputs or (), str)
        self._unwritten = set(named) - set(written)
        types = {**named, **written}
        defaults = {name: "" if hint is str else None for name, hint in types.items()}
        optional = {name: hint if hint in (str, Any) else hint | None for name, hint in types.items()}
        return yaml_types.owner(self._part.id, optional, defaults)

    def _workflow(self, at: int, flow: WorkflowPart) -> WorkflowDefinition:
        path = (*self._path, "workflows", at)
        where = self._where(path)
        inputs = self._inputs(path, flow)
        methods: dict[str, Handler] = {}
        written = self._written(path, flow)
        told = [name for name in inputs or self._fields.types if name not in written]
        for number, node in enumerate(flow.nodes):
            place = (*path, "nodes", number)
            if node.id in methods:
                raise self._places.fault((*place, "id"), f"{node.id!r} is used twice in this workflow")
            handler = self._handler(flow, node)
            around = yaml_nodes.Surroundings(
                self._fields.types, self._code.folder, self._code.functions, handler, tuple(told), self._code.complete
            )
            methods[node.id] = self._placed(place)(yaml_nodes.method, node, around)
            told += [name for name in yaml_nodes.writes(node, handler) if name not in told]
        self._check_ways(path, flow)
        mark = WorkflowMark(
            flow.id, flow.trigger, flow.trigger_id or flow.id, flow.name or flow.id.replace("_", " ").capitalize(),
            flow.description.strip(), inputs, flow.sample_input, tuple(_listens(flow)), flow.capability,
            tuple(flow.emits), flow.timeout, flow.checkpointed,
        )  # fmt: skip
        return assemble(
            where,
            operator_id=self._part.id,
            fields=self._fields,
            mark=mark,
            nodes={name: yaml_nodes.mark_of(method) for name, method in methods.items()},
            methods=methods,
            max_duration=timedelta(days=flow.max_days) if flow.max_days else None,
        )

    def _inputs(self, path: _Path, flow: WorkflowPart) -> tuple[str, ...] | None:
        if flow.inputs is None:
            unwritten = tuple(name for name in self._fields.types if name in self._unwritten)
            return unwritten if self._part.fields is None else None
        for at, name in enumerate(flow.inputs):
            if name not in self._fields.types:
                known = ", ".join(self._fields.types)
                raise self._places.fault((*path, "inputs", at), f"{name!r} is no state field; there are: {known}")
        return tuple(flow.inputs)

    def _written(self, path: _Path, flow: WorkflowPart) -> set[str]:
        found: set[str] = set()
        for number, node in enumerate(flow.nodes):
            found |= set(self._placed((*path, "nodes", number))(yaml_nodes.writes, node, self._handler(flow, node)))
        return found

    def _handler(self, flow: WorkflowPart, node: NodePart) -> Handler | None:
        given = self._code.handlers.get((self._part.id, flow.id, node.id))
        if given or not isinstance(node, (NODES["logic"], NODES["conditional"], NODES["gate"])):
            return given
        return yaml_handlers.named(self._code.functions, self._part.id, flow.id, node.id)

    def _check_ways(self, path: _Path, flow: WorkflowPart) -> None:
        known = [node.id for node in flow.nodes]
        for number, node in enumerate(flow.nodes):
            if node.next not in ("", "end", *known):
                problem = f"{node.next!r} is no node of the workflow; use 'end' or one of {known}"
                raise self._places.fault((*path, "nodes", number, "next"), problem)

    def _where(self, path: _Path) -> str:
        return str(self._places.fault(path, "")).rstrip(": ")

    def _placed(self, path: _Path) -> Any:
        def call(function: Any, *args: Any) -> Any:
            try:
                return function(*args)
            except yaml_nodes.Misplaced as error:
                raise self._places.fault((*path, *error.path), error.problem) from error
            except ValueError as error:
                raise self._places.fault(path, str(error)) from error
            except SetupError as error:
                raise self._places.fault(path, str(error)) from error

        return call


def _listens(flow: WorkflowPart) -> Iterator[str | Listen]:
    for item in flow.listens:
        yield item if isinstance(item, str) else Listen(item.event, where=item.where, takes=item.takes)


def _checked(places: Places) -> File:
    if not isinstance(places.data, dict):
        raise places.fault((), f"{_shown(places.data)}: is no mapping; it begins with 'operators'")
    try:
        return File.model_validate(places.data)
    except ValidationError as error:
        told = [fault for item in error.errors(include_url=False) if (fault := _fault(places, item))]
        shown = list(dict.fromkeys(str(fault) for fault in told))
        more = f"\n… and {len(shown) - _MOST_PROBLEMS} more" if len(shown) > _MOST_PROBLEMS else ""
        raise SetupError("\n".join(shown[:_MOST_PROBLEMS]) + more) from error


def _fault(places: Places, item: Any) -> SetupError | None:
    path, value, rest = _followed(places.data, item["loc"])
    kind = item["type"]
    if (kind == "string_type" and isinstance(value, dict)) or (kind == "model_type" and isinstance(value, str)):
        # The other way to write the same thing; what is wrong with the way that was chosen is told beside it.
        return None
    if kind == "extra_forbidden":
        return places.fault(path, _unknown_key(places.data, path), key=True)
    if kind == "missing":
        return places.fault(path, f"needs {rest[-1]!r}")
    if kind == "union_tag_not_found":
        return places.fault(path, f"needs 'type': one of {', '.join(NODES)}")
    if kind == "union_tag_invalid":
        return places.fault((*path, "type"), f"{value.get('type')!r} is no node type; use one of: {', '.join(NODES)}")
    return places.fault(path, f"{_shown(value)}: {item['msg'].removeprefix('Value error, ')}")


def _followed(data: Any, loc: tuple[str | int, ...]) -> tuple[_Path, Any, list[str | int]]:
    """Follow a location through the data; what is no step of it names a choice of the model, or what is missing."""
    path: list[str | int] = []
    rest: list[str | int] = []
    for step in loc:
        inside = isinstance(data, dict) and step in data
        if inside or (isinstance(data, list) and isinstance(step, int) and step < len(data)):
            path.append(step)
            data = data[step]
        else:
            rest.append(step)
    return tuple(path), data, rest


def _unknown_key(data: Any, path: _Path) -> str:
    *above, key = path
    for step in above:
        data = data[step]
    names = [step for step in above if isinstance(step, str)]
    part = next((PARTS[name] for name in reversed(names) if name in PARTS), File)
    if "nodes" in names and (not names or names[-1] == "nodes"):
        part = NODES.get(data.get("type"), NodePart)
    known = list(part.model_fields)
    close = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
