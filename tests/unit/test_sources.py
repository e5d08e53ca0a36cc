"""Operators are found in modules and files, and a script that serves them is read without serving."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openvibe import server, sources
from openvibe.errors import SetupError

OPERATOR = """
from openvibe import node, operator, workflow

@operator(id="{id}")
class {name}:
    total: int = 0

    @workflow(id="count")
    class Count:
        @node
        def add(self, state):
            return {{"total": 1}}
"""
HELLO = OPERATOR.format(id="hello", name="Hello")
OTHER = OPERATOR.format(id="other", name="Other")
YAML = """
operators:
  - id: written
    name: Written
    fields: {word: str}
    workflows:
      - id: say
        trigger: on_demand
        nodes:
          - {id: word, type: llm, model: haiku, system: Be short., prompt: Say hello!}
"""
SERVE = "\nfrom openvibe.server import serve\n"


@pytest.fixture(autouse=True)
def _own_names() -> Iterator[None]:
    """What a test reads is forgotten after it."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*read: str, only: tuple[str, ...] = ()) -> list[str]:
    return [definition.spec.id for definition in sources.operators(read, only=only)]


def test_a_script_that_serves_only_registers_when_it_is_read(folder: Path) -> None:
    (folder / "hello.py").write_text(HELLO + OTHER + SERVE + "serve(Hello)\nafterwards = True\n")
    assert names("./hello.py") == ["hello"]
    assert sys.modules["hello"].afterwards


def test_a_guarded_script_offers_the_operators_that_stand_in_it(folder: Path) -> None:
    (folder / "hello.py").write_text(HELLO + SERVE + "if __name__ == '__main__':\n    serve(Hello)\n")
    assert names("hello.py") == ["hello"]


def test_a_list_of_operators_goes_before_what_else_stands_in_a_module(folder: Path) -> None:
    (folder / "listed.py").write_text(HELLO + OTHER + "OPERATORS = [Other]\n")
    assert names("listed") == ["other"]


def test_a_file_finds_its_neighbours_and_one_class_counts_once(folder: Path) -> None:
    (folder / "deep er").mkdir()
    (folder / "deep er" / "neighbour.py").write_text(HELLO)
    (folder / "deep er" / "script.py").write_text("from neighbour import Hello\n" + SERVE + "serve(Hello)\n")
    assert names(str(folder / "deep er" / "script.py"), "neighbour") == ["hello"]


def test_a_file_may_bear_the_name_of_a_package_of_ours(folder: Path) -> None:
    (folder / "operators.py").write_text(HELLO)
    assert names("./operators.py") == ["hello"]
    assert importlib.import_module("operators").__file__ != str(folder / "operators.py")


def test_a_yaml_file_offers_its_operators_beside_a_module(folder: Path) -> None:
    (folder / "hello.py").write_text(HELLO)
    (folder / "operators.yaml").write_text(YAML)
    assert names("hello.py", "./operators.yaml") == ["hello", "written"]
    (folder / "wrong.yaml").write_text("operators: 3\n")
    with pytest.raises(SetupError, match=r"wrong\.yaml"):
        names("wrong.yaml")


def test_only_the_chosen_operators_are_taken(folder: Path) -> None:
    (folder / "both.py").write_text(HELLO + OTHER)
    assert names("both.py", only=("other",)) == ["other"]
    with pytest.raises(SetupError, match=r"There is no operator 'third' in both\.py; there is: hello, other\."):
        names("both.py", only=("third",))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def broken(:\n", "'wrong.py' cannot be imported: SyntaxError: invalid syntax (wrong.py, line 1)"),
        ("\n1 / 0\n", "'wrong.py' cannot be imported: ZeroDivisionError: division by zero ({path}, line 2)"),
        ("import sys; sys.exit(3)\n", "'wrong.py' cannot be imported: SystemExit: 3 ({path}, line 1)"),
        ("", "'wrong.py' offers no operators: give it a list called OPERATORS, or name another"),
        (
            HELLO.replace("count", "1"),
            "'wrong.py' holds a mistake: Hello.Count (workflow '1'): id='1': String should match",
        ),
        (HELLO + "\n@operator(id='x')\ndef f(): ...\n", "'wrong.py' holds a mistake: @operator decorates a class"),
    ],
)
def test_a_mistake_is_told_with_its_place(folder: Path, code: str, told: str) -> None:
    (folder / "wrong.py").write_text(code)
    with pytest.raises(SetupError) as caught:
        names("wrong.py")
    assert str(caught.value).replace(f"{folder}/", "", 1).startswith(told.format(path=folder / "wrong.py"))


@pytest.mark.parametrize("name", ["missing.py", "missing_module", "operators.missing"])
def test_what_is_not_there_is_named(folder: Path, name: str) -> None:
    with pytest.raises(SetupError, match=r"missing.* cannot be imported"):
        names(name)


def test_a_source_is_located_without_being_read(folder: Path) -> None:
    (folder / "package" / "inner").mkdir(parents=True)
    for name in ("package/__init__.py", "package/inner/__init__.py", "alone.py"):
        (folder / name).write_text("raise RuntimeError\n")
    assert sources.location("package.inner") == folder / "package" / "inner"
    assert sources.location("alone") == folder / "alone.py"
    assert sources.location("./alone.py") == folder / "alone.py"
    assert sources.location("package.nothing") is None


def test_serving_nothing_is_refused() -> None:
    with pytest.raises(SetupError, match="give it at least one class"):
        server.serve()
