"""The form in which a person decides at a gate: quote, note, and editors for the fields that may be changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents_ui import schemas
from agents_ui.schemas import Input
from operators.errors import Misfit
from operators.models import Wait
from operators.numbers import natural
from operators.services.waits import Answer

#: More records than this nobody sends by hand.
MOST_RECORDS = 200


@dataclass
class Record:
    """One object of a list that may be edited."""

    number: int
    prefix: str
    inputs: list[Input]
    dropped: bool = False

    @property
    def drop(self) -> str:
        """The name of the box that leaves this one out."""
        return f"{self.prefix}drop"


@dataclass
class Editor:
    """One state field that may be changed: either a single control or a list of records."""

    name: str
    label: str
    single: Input | None = None
    records: list[Record] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def controls(self) -> Iterator[Input]:
        """All controls of the editor."""
        if self.single:
            yield self.single
        for record in self.records:
            yield from record.inputs


class GateForm:
    """One gate's form: as it is open, or as somebody sent it."""

    def __init__(self, wait: Wait, sent: Mapping[str, str] | None = None) -> None:
        self.wait = wait
        self.errors: list[str] = []
        self.notes = "" if sent is None else sent.get("notes", "")
        self._sent = sent
        self.editing = sent is not None and any(name.startswith("values.") for name in sent)
        root = wait.schema
        values = schemas.resolved(root.get("properties", {}).get("values", {}), root)
        parts = values.get("properties", {})
        self.editors = [self._editor(name, parts[name]) for name in wait.edits if name in parts]

    @property
    def decisions(self) -> list[str]:
        """All decisions but the two that every gate page knows."""
        return [name for name in self.wait.decisions if name not in ("approve", "reject")]

    def answer(self) -> Answer:
        """Return what was decided; raises `Misfit` if an edited field cannot be read."""
        sent = self._sent or {}
        decision = sent.get("decision", "")
        values = self._values() if self.editing and decision != "reject" else {}
        if any(control.errors for editor in self.editors for control in editor.controls):
            raise Misfit("Some fields cannot be read", errors=[])
        version = natural(sent.get("version", ""))
        return Answer(
            decision=decision,
            notes=self.notes.strip().replace("\r\n", "\n"),
            values=values or None,
            # A page always quotes what it showed; a quote that is missing matches nothing.
            version=-1 if version is None else version,
            payload_sha256=sent.get("payload_sha256", ""),
        )

    def refuse(self, error: Misfit) -> None:
        """Put each problem beside the control that it is about."""
        controls = {control.name: control for editor in self.editors for control in editor.controls}
        editors = {f"values.{editor.name}": editor for editor in self.editors}
        for problem in error.detail.get("errors", []):
            name, message = self._as_shown(problem["field"]), problem["message"]
            place = controls.get(name) or editors.get(".".join(name.split(".")[:2]))
            if place:
                place.errors.append(message)
            else:
                self.errors.append(f"{problem['field']}: {message}")

    def _as_shown(self, path: str) -> str:
        """Return the control's name for a path in the values that were sent, in which dropped records are missing."""
        parts = path.split(".")
        editor = next((item for item in self.editors if parts[:2] == ["values", item.name]), None)
        if editor is None or len(parts) < 3 or not editor.records or not parts[2].isdecimal():
            return path
        kept = [record for record in editor.records if not record.dropped]
        return kept[int(parts[2])].prefix + ".".join(parts[3:])

    def _editor(self, name: str, part: schemas.Schema) -> Editor:
        root, value = self.wait.schema, self.wait.payload.get(name)
        part = schemas.resolved(part, root)
        label = part.get("title") or name.replace("_", " ").capitalize()
        item = schemas.resolved(part.get("items", {}), root)
        if part.get("type") == "array" and item.get("properties") and isinstance(value, list):
            return Editor(name, label, records=self._records(name, item, value))
        wrapped = {"properties": {name: part}}
        (single,) = schemas.inputs(wrapped, root, {name: value}, prefix="values.")
        return Editor(name, label, single=single)

    def _records(self, name: str, item: schemas.Schema, value: list[Any]) -> list[Record]:
        return [
            Record(
                number=index + 1,
                prefix=(prefix := f"values.{name}.{index}."),
                inputs=self._short_first(item, row if isinstance(row, dict) else {}, prefix=prefix),
            )
            for index, row in enumerate(value[:MOST_RECORDS])
        ]

    def _short_first(self, item: schemas.Schema, row: Mapping[str, Any], *, prefix: str) -> list[Input]:
        controls = schemas.inputs(item, self.wait.schema, row, prefix=prefix)
        return sorted(controls, key=lambda control: control.control in ("text", "area", "json"))

    def _values(self) -> dict[str, Any]:
        """Return the fields that differ from what the gate shows."""
        values = {editor.name: self._edited(editor) for editor in self.editors}
        return {name: value for name, value in values.items() if value != self.wait.payload.get(name)}

    def _edited(self, editor: Editor) -> Any:
        sent = self._sent or {}
        if editor.single:
            return schemas.read([editor.single], sent, blanks=True).get(editor.single.name)
        rows = []
        for record in editor.records:
            read = schemas.read(record.inputs, sent, blanks=True)
            record.dropped = record.drop in sent
            if not record.dropped:
                rows.append({name.removeprefix(record.prefix): value for name, value in read.items()})
        return rows
