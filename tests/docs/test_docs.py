"""The documents are true: what they name exists, and what exists is named."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest
from django.urls import resolve
from rest_framework import exceptions
from rest_framework import serializers as rest

import openvibe
from openvibe import errors, specs
from openvibe.protocol.envelope import Envelope
from openvibe.protocol.streams import STREAMS
from openvibe_site import env
from operators import errors as refusals
from operators import models
from operators.api import health, problems, serializers
from operators.bridge.dialects import DIALECTS
from operators.services.announcements import PUBLIC_KINDS
from tests.docs import documents
from tests.docs.documents import ALL, DOCS, README, ROOT

API, PROTOCOL, GLOSSARY = DOCS / "api.md", DOCS / "protocol.md", DOCS / "glossary.md"
EMITTING = [
    *sorted((ROOT / "operators/services").glob("*.py")),
    ROOT / "operators/clock.py",
    ROOT / "openvibe/events.py",
]
#: What the REST framework raises on our behalf.
RAISED = ("ParseError", "NotAuthenticated", "AuthenticationFailed", "PermissionDenied", "MethodNotAllowed")
#: How the name of a file of this project begins.
OURS = ("openvibe/", "operators/", "agents_ui/", "openvibe_site/", "tests/", "docs/", "scripts/", "static/")


def test_every_environment_variable_is_documented_and_every_documented_one_is_read() -> None:
    read = re.findall(r'environ, "([A-Z_]+)"', Path(env.__file__).read_text("utf-8"))
    listed = [
        documents.quoted(row[0])[0] for row in documents.rows((DOCS / "settings.md").read_text("utf-8")) if len(row) > 2
    ]
    assert read
    assert sorted(listed) == sorted(read)


def test_every_kind_of_event_that_is_emitted_is_documented_and_no_other() -> None:
    kind = re.compile(r'"((?:run|step|attempt|gate)\.[a-z_]+)"')
    emitted = {name for path in EMITTING for name in kind.findall(path.read_text("utf-8"))}
    table = {documents.quoted(row[0])[0]: row for row in documents.rows(documents.section(API, "Event kinds"))}
    assert emitted
    assert set(table) == emitted
    assert {name for name, row in table.items() if row[1] == "yes"} == PUBLIC_KINDS


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for path in ALL:
        text = path.read_text("utf-8")
        named = re.findall(r"`(?:\S+=\S+ )?make ([a-z]+)|^(?:\S+=.* )?make ([a-z]+)", text, re.MULTILINE)
        assert {first or second for first, second in named} <= targets, path.name
    assert targets <= set(re.findall(r"make ([a-z]+)", README.read_text("utf-8")))


def test_the_glossary_names_every_table_and_no_other() -> None:
    named = [name for row in _glossary() for name in documents.quoted(row[2])]
    assert sorted(named) == sorted(models.__all__)


def test_the_glossary_has_one_entry_a_word() -> None:
    words = [row[0] for row in _glossary()]
    assert len(words) > 30
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading_that_exist(path: Path) -> None:
    for target in documents.links(path):
        name, _, fragment = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        assert not fragment or fragment in documents.anchors(found), target


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_and_module_that_is_named_exists(path: Path) -> None:
    for words in documents.quoted(documents.prose(path)):
        if re.fullmatch(r"[\w./-]+", words) and words.startswith(OURS):
            assert (ROOT / words).exists(), words
        if re.fullmatch(r"(openvibe|operators)(\.[A-Za-z_]+)+", words) and not words.endswith(".db"):
            assert _module_or_name(words), words


def test_every_refusal_stands_in_the_table_of_problems_with_its_status() -> None:
    table = {
        (cells[0], documents.quoted(cells[1])[0])
        for line in documents.section(API, "Problems").splitlines()
        if re.match(r"\| \d", line)
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
    }
    kinds = [kind for kind in refusals.DomainError.__subclasses__() if kind.__module__ == refusals.__name__]
    assert kinds
    assert {(str(kind.status), kind.code) for kind in kinds} <= table
    raised = [getattr(exceptions, name) for name in RAISED]
    assert {(str(kind.status_code), kind.default_code) for kind in raised} <= table


@pytest.mark.parametrize(
    "view",
    [serializers.RunDetail, serializers.WaitView, serializers.Metrics, serializers.WorkflowView, serializers.NodeView,
     serializers.OperatorSummary, serializers.EventView, serializers.EventList, serializers.ActivateBody,
     serializers.ResumeBody, serializers.CancelBody],
)  # fmt: skip
def test_every_field_of_the_api_is_documented(view: type[rest.Serializer]) -> None:
    text = API.read_text("utf-8")
    assert [name for name in view().fields if not re.search(rf'[`"]{name}[`"]', text)] == []


def test_every_documented_call_exists_and_every_call_is_documented() -> None:
    text = API.read_text("utf-8")
    calls = re.findall(r"`(GET|POST|DELETE) (/\S+)`", text)
    assert len(calls) >= 10
    names = set()
    for method, path in calls:
        view = resolve(path.replace("<id>", "an_operator").replace("<run_id>", "run_1")).func
        assert view is not problems.not_found, path
        handler = getattr(view, "view_class", None)
        if handler is not None:
            names.add(handler.__name__)
            assert hasattr(handler, method.lower()), f"{method} {path}"
    assert names == {"Operators", "OperatorPage", "Activate", "Runs", "RunPage", "RunEvents", "Resume", "Retries"}
    assert [name for name in health.CHECKS if f"`{name}`" not in text] == []


def test_the_wire_is_documented_as_it_is() -> None:
    text = PROTOCOL.read_text("utf-8")
    table = {documents.quoted(row[0])[0]: row for row in documents.rows(documents.section(PROTOCOL, "Streams"))}
    for stream in STREAMS:
        hours = int(stream.max_age.total_seconds() // 3600)
        assert documents.quoted(table[stream.name][1]) == list(stream.subjects)
        assert table[stream.name][2] == ("24 hours" if hours == 24 else f"{hours // 24} days")
    assert len(table) == len(STREAMS)
    read = documents.section(PROTOCOL, "What the bridge reads")
    heard = [name for row in documents.rows(read) for name in documents.quoted(row[0])]
    assert heard == [pattern for _, pattern, _ in DIALECTS]
    assert [name for name in Envelope.model_fields if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("decorator", "names"),
    [
        ("@operator", {"id", "name", "description", "owner"}),
        ("@workflow", {"id", "trigger", "trigger_id", "name", "description", "inputs", "sample_input"}),
        ("@llm_node", {*specs.ModelSpec.model_fields, "next"}),
        ("@conditional", {"routes", "next"}),
        ("@human_in_the_loop", {*specs.GateSpec.model_fields, "next"}),
    ],
)
def test_every_option_of_a_decorator_is_documented_with_its_default(decorator: str, names: set[str]) -> None:
    options = inspect.signature(getattr(openvibe, decorator.removeprefix("@"))).parameters
    assert set(options) == names
    text = documents.section(DOCS / "operators.md", f"`{decorator}`").partition("\n\nThe ")[0]
    table = {documents.quoted(row[0])[0]: row for row in documents.rows(text)}
    assert set(table) == names
    for name, option in options.items():
        assert (option.default is option.empty) == (table[name][1] == "required"), name
        if option.default and option.default is not option.empty:
            shown = str(option.default).replace("'", '"')
            assert table[name][1] == f"`{shown}`", name


def test_every_error_that_is_named_in_operators_exists() -> None:
    text = documents.section(DOCS / "operators.md", "What a run comes to")
    named = {name for row in documents.rows(text) for name in documents.quoted(row[0]) if name.endswith("Error")}
    assert named
    assert [name for name in named if not hasattr(errors, name)] == []


def test_every_dependency_that_a_decision_explains_is_installed_and_pinned() -> None:
    text = (DOCS / "decisions/002-dependencies.md").read_text("utf-8")
    explained = {
        name for line in text.splitlines() if line.startswith("- `") for name in documents.quoted(line.split(":")[0])
    }
    pinned = {re.split(r"[\[=]", line)[0] for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()}
    assert len(explained) > 15
    assert explained <= pinned
    assert {name for name in pinned if name and name[0] not in "#-"} == explained


def _glossary() -> list[list[str]]:
    lines = [line for line in GLOSSARY.read_text("utf-8").splitlines() if re.match(r"\| [a-z]", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| word |")]


def _module_or_name(words: str) -> bool:
    module, _, name = words.rpartition(".")
    try:
        importlib.import_module(words)
    except ModuleNotFoundError:
        return hasattr(importlib.import_module(module), name)
    return True
