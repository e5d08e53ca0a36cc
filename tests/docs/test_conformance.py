"""The tables of conformance: each rule of a dialect names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs import documents
from tests.docs.documents import DOCS, ROOT

_ROW = re.compile(r"^\| (?!rule )(.+) \| (.+) \|$", re.MULTILINE)
RULES = _ROW.findall(documents.section(DOCS / "protocol.md", "cg: conformance"))


def test_there_are_rules_and_none_stands_there_twice() -> None:
    said = [rule for rule, _ in RULES]
    assert len(said) > 5
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("row", RULES, ids=lambda row: row[0][:50])
def test_each_rule_is_held_by_tests_that_exist(row: tuple[str, str]) -> None:
    named = documents.quoted(row[1])
    assert named, "a rule needs a test"
    for name in named:
        path, _, test = name.partition("::")
        assert test in _tests(ROOT / path), name


@cache
def _tests(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(item.name for item in ast.walk(tree) if isinstance(item, functions) and item.name[:5] == "test_")
