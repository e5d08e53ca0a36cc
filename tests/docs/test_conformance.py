"""The tables of conformance: every rule of a dialect stands there, and names tests that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.docs import documents
from tests.docs.documents import DOCS, ROOT

_ROW = re.compile(r"^\| (?!§ )(.+) \| (.+) \| (.+) \|$", re.MULTILINE)
RULES = _ROW.findall(documents.section(DOCS / "protocol.md", "cg: conformance"))
OURS = "–"
#: What the protocol's definition lays down, chapter by chapter, each rule by words that its row has.
LAID_DOWN: Mapping[str, tuple[str, ...]] = {
    "1": ("eight parts", "no subject of this version", "`u_{user}`"),
    "2.1": ("each kept by their stream", "24 hours and for 7 days", "The database is the truth"),
    "2.2": ("`str` by none", "never move state"),
    "3": ("filled only where they are missing", "`tracestate`, `CG-User-ID`", "bears no headers", "are warned about"),
    "3 depth": (
        "at depth 0", "missing, negative or wrong", "`enqueue` knows the mode `call` only", "one deeper than the run",
        "same correlation with another depth", "join comes back", "too deep does not start", "refused at 20",
        "`error_code`, such as `recursion_depth_exceeded` and `protocol_violation`",
    ),
    "3 trace": (
        "filled where it is missing", "go on in the run's trace", "passes the inbound `traceparent` through",
        "inherit the caller's trace", "over HTTP",
    ),
    "4.1": ("not fenced by the current epoch", "older `turn_epoch`"),
    "4.2": ("once for each run and call", "the first counts"),
    "5.1": ("is a bell",),
    "5.2": (
        "A `tool_result` needs", "inline `result` is prohibited", "`__cg_control", "one of five", "travel by pointer",
    ),
    "5.3": ("cancels the turn",),
    "5.4": ("points at its arguments", "travel by pointer"),
    "5.5": ("called like any tool",),
    "5.6": ("every required field",),
    "5.7": ("every required field", "exactly one `task`"),
    "5.8": ("`chunk_type`", "bears no headers"),
    "5.9": ("every required field", "signal at the edge"),
    "5.10": ("needs `action_id`", "once for each `action_id`", "must be allowed"),
    "5.11": ("has `action_id`", "`agent_busy`"),
    "6.1": ("multicast",),
    "6.2": ("Replicas share",),
    "6.3": ("each kept by their stream",),
    "6.4": ("what was sent meanwhile arrives",),
    "6.5": ("`[nats.pull]`",),
}  # fmt: skip


def test_there_are_rules_and_none_stands_there_twice() -> None:
    said = [rule for _, rule, _ in RULES]
    assert len(said) > 5
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("chapter", LAID_DOWN)
def test_every_rule_of_the_definition_has_its_row(chapter: str) -> None:
    said = [rule for chapters, rule, _ in RULES if chapter in chapters.split(", ")]
    assert [words for words in LAID_DOWN[chapter] if not any(words in rule for rule in said)] == []


def test_every_row_is_of_a_chapter_or_ours() -> None:
    named = {chapter for chapters, _, _ in RULES for chapter in chapters.split(", ")}
    assert named == {*LAID_DOWN, OURS}


@pytest.mark.parametrize("row", RULES, ids=lambda row: row[1][:50])
def test_each_rule_is_held_by_tests_that_exist(row: tuple[str, str, str]) -> None:
    named = documents.quoted(row[2])
    assert named, "a rule needs a test"
    for name in named:
        path, _, test = name.partition("::")
        assert test in _tests(ROOT / path), name


@cache
def _tests(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(item.name for item in ast.walk(tree) if isinstance(item, functions) and item.name[:5] == "test_")
