"""The form in which a person decides at a gate: quote, note, and editors for the fields that may be changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agents_ui import questions, schemas
from agents_ui.schemas import Input
from openvibe import canonical
from operators.errors import Misfit
from operators.models import Wait
from operators.numbers import natural
from operators.services.waits import Answer

#: More records than this nobody sends by hand.
MOST_RECORDS = 200
#: What is said of a control that was left empty: of an answer, and of a value that is shown and may be changed.
NEEDED, FULL = "This is needed for an answer", "This cannot be empty"
#: Controls whose values may be empty.
EMPTIABLE = ("text", "area", "check")
#: Nothing was given; null is something.
MISSING: Any = object()


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
    """One value that may be changed or given: a single control, the fields of an object, or a list of records."""

    name: str
    label: str
    #: A hash of the value that the gate asks about, by which a page knows whether it is still the same.
    basis: str
    single: Input | None = None
    fields: list[Input] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def controls(self) -> Iterator[Input]:
        """All controls of the editor."""
        if self.single:
            yield self.single
        yield from self.fields
        for record in self.records:
            yield from record.inputs


class GateForm:
    """One gate's form: as it is open, or as somebody sent it."""

    def __init__(self, wait: Wait, sent: Mapping[str, str] | None = None) -> None:
        self.wait = wait
        self.errors: list[str] = []
        self.note_errors: list[str] = []
        self.notes = "" if sent is None else sent.get("notes", "")
        self.written = wait.form in questions.WRITTEN
        self._sent = sent
        given = sent is not None and any(name.startswith("values.") for name in sent)
        self.editing = given and not self.written
        root = wait.schema
        values = schemas.resolved(root.get("properties", {}).get("values", {}), root)
        parts = values.get("properties", {})
        # The result of an effect that happened may be unknown; whoever edits or answers has something to say.
        self._required = wait.edits if wait.form not in ("", "effect") else ()
        self.editors = [self._editor(name, parts[name]) for name in wait.edits if name in parts]
        for control in (control for editor in self.editors for control in editor.controls):
            control.form = wait.id
        self.choices = questions.choices(wait)
        self.question, self.why = questions.heading(wait)
        self.shown = questions.shown(wait)

    def answer(self) -> Answer:
        """Return what was decided; raises `Misfit` if something is missing or cannot be read."""
        sent = self._sent or {}
        decision = sent.get("decision", "")
        values = self._values() if self._takes(decision) else {}
        if decision in questions.SPEAKING and self.wait.form and not self.notes.strip():
            self.note_errors.append("Write your response here")
        if self.note_errors or any(control.errors for editor in self.editors for control in editor.controls):
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

    def _takes(self, decision: str) -> bool:
        if self.wait.form:
            return (self.written or self.editing) and decision == questions.TAKING.get(self.wait.form)
        return self.editing and decision != "reject"

    def refuse(self, error: Misfit) -> None:
        """Put each problem beside the control that it is about."""
        controls = {control.name: control for editor in self.editors for control in editor.controls}
        editors = {f"values.{editor.name}": editor for editor in self.editors}
        for problem in error.detail.get("errors", []):
            name, message = self._as_shown(problem["field"]), problem["message"]
            place = controls.get(name) or editors.get(".".join(name.split(".")[:2]))
            if place:
                place.errors.append(message)
            elif name == "notes":
                self.note_errors.append(message)
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
        # A graph's own schema brings the definitions that it refers to.
        root = {**self.wait.schema, "$defs": {**self.wait.schema.get("$defs", {}), **part.get("$defs", {})}}
        value = questions.prefilled(self.wait, name)
        kept = value is not None and not schemas.nullable(part)
        part = schemas.resolved(part, root)
        label = questions.LABELS.get(name, "") if self.wait.form else ""
        label = label or part.get("title") or name.replace("_", " ").capitalize()
        item = schemas.resolved(part.get("items", {}), root)
        editor = Editor(name, label, canonical.sha256(value)[:12])
        if part.get("type") == "array" and item.get("properties") and isinstance(value, list):
            return replace(editor, records=self._records(name, item, value))
        if self.wait.form and part.get("properties"):
            fields = schemas.inputs(part, root, value or {}, prefix=f"values.{name}.")
            return replace(editor, fields=fields)
        wrapped = {"properties": {name: part}, "required": self._required}
        (single,) = schemas.inputs(wrapped, root, {name: value}, prefix="values.")
        if self.wait.form == "value" and single.control == "json" and not part.get("type"):
            single.control = "free"
        if self.wait.form:
            single.label = label
        else:
            single.required = kept and single.control not in EMPTIABLE
        return replace(editor, single=single)

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
        """Return what was given; of our own gates' fields, those that differ from what the gate shows."""
        values = {editor.name: self._edited(editor) for editor in self.editors}
        for editor in self.editors:
            if editor.single and editor.single.required and values[editor.name] is MISSING:
                editor.single.errors = editor.single.errors or [NEEDED if self.wait.form else FULL]
        if self.wait.form:
            return {name: value for name, value in values.items() if value is not MISSING}
        values = {name: None if value is MISSING else value for name, value in values.items()}
        return {name: value for name, value in values.items() if value != self.wait.payload.get(name)}

    def _edited(self, editor: Editor) -> Any:
        sent = self._sent or {}
        if editor.single:
            blanks = not self.wait.form
            return schemas.read([editor.single], sent, blanks=blanks).get(editor.single.name, MISSING)
        if editor.fields:
            read = schemas.read(editor.fields, sent)
            return {name.removeprefix(f"values.{editor.name}."): value for name, value in read.items()}
        rows = []
        for record in editor.records:
            read = schemas.read(record.inputs, sent, blanks=True)
            record.dropped = record.drop in sent
            if not record.dropped:
                rows.append({name.removeprefix(record.prefix): value for name, value in read.items()})
        return rows
