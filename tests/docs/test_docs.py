"""The documents are true: what they name exists, and what exists is named."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.urls import ResolverMatch, URLResolver, resolve
from rest_framework import exceptions
from rest_framework import serializers as rest

import openvibe
from openvibe import errors, specs, testing, yaml_schema
from openvibe.cli import main as cli
from openvibe.ctx import Ctx
from openvibe.events import LOG
from openvibe.hooks import KINDS
from openvibe.protocol.envelope import Envelope
from openvibe.protocol.streams import CONSUMERS, STREAMS
from openvibe_site import env
from openvibe_site import urls as urlconf
from operators import errors as refusals
from operators import models
from operators.api import (
    agents,
    answers,
    boxes,
    cards,
    context,
    forks,
    health,
    problems,
    schemas,
    serializers,
    servers,
    sessions,
    subscriptions,
)
from operators.services.announcements import PUBLIC_KINDS
from tests.docs import documents
from tests.docs.documents import ALL, DOCS, README, ROOT

OPERATORS, RUNTIME = DOCS / "operators.md", DOCS / "runtime.md"
API, PROTOCOL, GLOSSARY = DOCS / "api.md", DOCS / "protocol.md", DOCS / "glossary.md"
EMITTING = [
    *sorted((ROOT / "operators/services").glob("*.py")),
    ROOT / "operators/clock.py",
    ROOT / "openvibe/events.py",
]
#: Whose answers are told by kinds of their own.
ASKED = (models.Wait.Kind.TOOL, models.Wait.Kind.WORK, models.Wait.Kind.REPLY, models.Wait.Kind.CHANGE)
#: What the REST framework raises on our behalf.
RAISED = ("ParseError", "NotAuthenticated", "AuthenticationFailed", "PermissionDenied", "MethodNotAllowed")
#: How the name of a file of this project begins.
OURS = ("openvibe/", "operators/", "agents_ui/", "openvibe_site/", "tests/", "docs/", "scripts/", "static/")


def test_every_environment_variable_is_documented_and_every_documented_one_is_read() -> None:
    read = re.findall(r'environ, "([A-Z_]+)"', Path(env.__file__).read_text("utf-8"))
    named = [documents.quoted(row[0])[0] for row in documents.rows((DOCS / "settings.md").read_text("utf-8"))]
    listed = [name for name in named if re.fullmatch(r"[A-Z_]+", name)]
    assert read
    assert sorted(listed) == sorted(set(read))


def test_every_kind_of_event_that_is_emitted_is_documented_and_no_other() -> None:
    kind = re.compile(r'"((?:run|step|attempt|gate|timer|event|answer|stop|reply)\.[a-z_]+)"')
    emitted = {name for path in EMITTING for name in kind.findall(path.read_text("utf-8"))}
    emitted |= {f"{kind}.{end}" for kind in ASKED for end in ("requested", "answered", "expired")}
    effects = set(re.findall(r'effects\.fact\("([a-z]+)"', (ROOT / "operators/services/hosting.py").read_text("utf-8")))
    settled = {state for state in models.Effect.State.values if state != models.Effect.State.ATTEMPTED}
    emitted |= {LOG, *(f"effect.{state}" for state in effects | settled)}
    table = {
        name: row for row in documents.rows(documents.section(API, "Event kinds")) for name in documents.quoted(row[0])
    }
    assert len(effects) > 1
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
def test_every_table_has_a_heading_and_rows_of_its_width(path: Path) -> None:
    tables = re.findall(r"(?:^\|.*\n?)+", documents.prose(path), re.MULTILINE)
    for table in tables:
        heading, rule, *rows = table.splitlines()
        assert re.fullmatch(r"\|(-+\|)+", rule), heading
        # A bar within backticks parts no cells.
        widths = {re.sub(r"`[^`]*`", "", row).count("|") for row in (heading, rule, *rows)}
        assert len(widths) == 1, heading


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
     serializers.ResumeBody, serializers.OverrideBody, serializers.CancelBody, serializers.StartedRun,
     answers.AnsweredWait, boxes.BoxView, cards.CardView,
     cards.Pointer, context.EntryView, context.KeyList, context.RevisionView, context.History, forks.ForkBody,
     forks.StepView, schemas.SchemaLine, servers.ServerView, subscriptions.SubscribeBody, subscriptions.NewSubscription,
     subscriptions.DeliveryView, agents.AgentView, agents.StintView, agents.AgentBody, sessions.SessionDetail,
     sessions.SessionBody, sessions.GraphPart, sessions.RecordView, sessions.RecordList],
)  # fmt: skip
def test_every_field_of_the_api_is_documented(view: type[rest.Serializer]) -> None:
    text = API.read_text("utf-8")
    assert [name for name in view().fields if not re.search(rf'[`"]{name}[`"]', text)] == []


def test_every_documented_call_exists_and_every_call_is_documented() -> None:
    text = API.read_text("utf-8")
    calls = set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?]+)(?:\?[^`]*)?`", text))
    documented = {(method, resolved(path).route) for method, path in calls}
    existing = {
        (method.upper(), route)
        for route, view in _views(urlconf.urlpatterns)
        for method in ("get", "post", "put", "patch", "delete")
        if hasattr(view, method)
    }
    assert len(existing) > 20
    assert {call for call in existing if _is_ours(call[1])} - documented == set()
    assert documented - existing - {("GET", route) for route, _ in _plain(urlconf.urlpatterns)} == set()
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
    patterns = {pattern for consumer in CONSUMERS for pattern in consumer.patterns}
    theirs = {pattern for pattern in patterns if pattern.startswith("tenant.")}
    assert sorted(heard) == sorted(patterns - theirs)
    assert theirs == {f"tenant.*.{pattern}" for pattern in patterns - theirs if not pattern.startswith("cg.")}
    assert "with `tenant.<project>.` before it" in read
    assert [name for name in Envelope.model_fields if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "decorator",
    ["@operator", "@workflow", "@durable", "@node", "@llm_node", "@agent_node", "@remote_node", "@conditional",
     "@human_in_the_loop"],
)  # fmt: skip
def test_every_option_of_a_decorator_is_documented_with_its_default(decorator: str) -> None:
    options = dict(inspect.signature(getattr(openvibe, decorator.removeprefix("@"))).parameters)
    # `@node` may stand without parentheses.
    options.pop("method", None)
    text = documents.section(OPERATORS, f"`{decorator}`").partition("\n\nThe ")[0].partition("\n\nA trigger")[0]
    table = {documents.quoted(row[0])[0]: row for row in documents.rows(text)}
    assert set(table) == set(options)
    for name, option in options.items():
        assert (option.default is option.empty) == (table[name][1] == "required"), name
        if option.default and option.default is not option.empty:
            shown = str(option.default).replace("'", '"')
            assert table[name][1] == f"`{shown}`", name


def test_every_public_name_stands_in_the_documents_for_authors() -> None:
    text = "".join(path.read_text("utf-8") for path in (OPERATORS, RUNTIME, DOCS / "cli.md"))
    assert [name for name in openvibe.__all__ if not re.search(rf"`@?{name}\b", text)] == []
    assert [name for name in testing.__all__ if f"`{name}(" not in RUNTIME.read_text("utf-8")] == []


def test_everything_that_a_step_may_do_is_documented() -> None:
    text = documents.section(OPERATORS, "What a step may do: `ctx`")
    public = {name for name in dir(Ctx) if not name.startswith("_")} - {"session", "notes", "ask"}
    assert len(public) > 8
    assert [name for name in public if f"`ctx.{name}" not in text] == []
    retry = documents.section(OPERATORS, "Tries, timeouts and rests")
    assert [name for name in specs.Retry.model_fields if f"| `{name}` |" not in retry] == []
    listen = OPERATORS.read_text("utf-8")
    assert [name for name in ("where", "takes") if f'`Listen("shop.sold", {name}=' not in listen] == []
    assert set(openvibe.Listen.model_fields) == {"event", "where", "takes"}


def test_everything_that_a_runtime_offers_is_documented() -> None:
    text = RUNTIME.read_text("utf-8")
    public = [name for name, item in vars(openvibe.OperatorRuntime).items() if callable(item) and name[0] != "_"]
    assert len(public) > 15
    assert [name for name in public if not re.search(rf"`{name}[(`]", text)] == []
    options = [
        *inspect.signature(openvibe.OperatorRuntime).parameters,
        *inspect.signature(openvibe.configure).parameters,
    ]
    assert [name for name in options if f"`{name}`" not in text] == []
    hooks = documents.quoted(documents.section(RUNTIME, "Hooks"))
    assert [kind for kind in KINDS if kind not in hooks] == []


def test_every_key_of_an_operators_file_is_documented() -> None:
    text = (DOCS / "yaml.md").read_text("utf-8")
    parts = {**yaml_schema.NODES, **yaml_schema.PARTS, "file": yaml_schema.File}
    for name, part in parts.items():
        assert [key for key in part.model_fields if f"`{key}`" not in text] == [], name
    types = {documents.quoted(row[0])[0]: row for row in documents.rows(documents.section(DOCS / "yaml.md", "Nodes"))}
    every = {"id", "type", "description", "next"}
    for name, part in yaml_schema.NODES.items():
        assert set(part.model_fields) - every <= set(documents.quoted(types[name][1])), name


def test_every_command_of_the_server_is_documented() -> None:
    table = documents.section(DOCS / "settings.md", "Commands of the server")
    named = {words.split()[0] for row in documents.rows(table) for words in documents.quoted(row[0])}
    files = (ROOT / "operators/management/commands").glob("[a-z]*.py")
    assert named == {path.stem for path in files}


def test_every_command_and_its_options_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    commands = re.findall(r"^    ([a-z]+)  ", _help(capsys), re.MULTILINE)
    assert len(commands) > 8
    for command in commands:
        assert f"`{command}`" in text or f"`openvibe {command}" in text, command
        options = re.findall(r"--[a-z-]+", _help(capsys, command))
        assert [option for option in options if option != "--help" and f"`{option}" not in text] == [], command


def test_every_error_is_named_and_every_named_one_exists() -> None:
    text = documents.section(OPERATORS, "What a run comes to")
    named = {name for row in documents.rows(text) for name in documents.quoted(row[0])}
    public = {name for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, Exception)}
    # The root, and the engine's own signal that a pause is due.
    assert named == public - {"OpenVibeError", "Backoff"}


def test_every_dependency_that_a_decision_explains_is_installed_and_pinned() -> None:
    text = (DOCS / "decisions/002-dependencies.md").read_text("utf-8")
    explained = {
        name for line in text.splitlines() if line.startswith("- `") for name in documents.quoted(line.split(":")[0])
    }
    assert len(explained) > 15
    assert _pinned("requirements.txt") == explained
    tools = documents.quoted(text.partition("`requirements-dev.txt`")[2])
    assert {name for name in tools if re.fullmatch(r"[\w-]+", name)} <= _pinned("requirements-dev.txt")


def _pinned(name: str) -> set[str]:
    pinned = {re.split(r"[\[=]", line)[0] for line in (ROOT / name).read_text("utf-8").splitlines()}
    return {name for name in pinned if name and name[0] not in "#-"}


def _help(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    return capsys.readouterr().out


def resolved(path: str) -> ResolverMatch:
    """Return what answers a documented address; what stands in angle brackets is anything."""
    found = resolve(re.sub(r"<[a-z0-9_]+>", "x1", path))
    assert found.func is not problems.not_found, path
    return found


def _views(patterns: Sequence[Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for route, found in _plain(patterns, above):
        view = getattr(found, "view_class", None) or getattr(found, "cls", None)
        if view is not None:
            yield route, view


def _plain(patterns: Sequence[Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for item in patterns:
        route = above + str(item.pattern).removeprefix("^")
        if isinstance(item, URLResolver):
            yield from _plain(item.url_patterns, route)
        else:
            yield route, item.callback


def _is_ours(route: str) -> bool:
    """Tell whether an address belongs to the API that we describe, and not to a package."""
    return route.startswith(("v1/", "api/")) and not route.startswith(("v1/schema/", "v1/docs/"))


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
