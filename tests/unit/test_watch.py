"""A change of the operators' files is noticed once, when nobody writes any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from openvibe_site.watch import Watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "hello.py").write_text("1")
    (tmp_path / "prompts" / "greet.md").write_text("Hello")
    return tmp_path


def watch(folder: Path) -> Watch:
    return Watch([str(folder / "hello.py")], home=folder / "home")


def changed(watching: Watch) -> list[str]:
    """What the second look tells: the first one only sees that somebody writes."""
    assert watching.changed() == []
    return [path.name for path in watching.changed()]


def test_nothing_is_told_while_nothing_changes(folder: Path) -> None:
    watching = watch(folder)
    assert changed(watching) == []


def test_a_change_is_told_once(folder: Path) -> None:
    watching = watch(folder)
    (folder / "hello.py").write_text("11")
    assert changed(watching) == ["hello.py"]
    assert changed(watching) == []


def test_prompts_new_files_and_removed_ones_count(folder: Path) -> None:
    watching = watch(folder)
    (folder / "prompts" / "greet.md").write_text("Hello!")
    (folder / "new.py").write_text("")
    assert changed(watching) == ["new.py", "greet.md"]
    (folder / "new.py").unlink()
    assert changed(watching) == ["new.py"]


def test_a_change_is_not_told_while_it_is_being_written(folder: Path) -> None:
    watching = watch(folder)
    for size in range(2, 5):
        (folder / "hello.py").write_text("1" * size)
        assert watching.changed() == []
    assert [path.name for path in watching.changed()] == ["hello.py"]


@pytest.mark.parametrize("name", ["notes.md", ".hidden/x.py", "deep/er/still/x.py", "home/x.py", "data.json"])
def test_what_belongs_to_no_operator_is_passed_over(folder: Path, name: str) -> None:
    watching = watch(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("")
    assert changed(watching) == []


def test_a_package_is_watched_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = folder / "package" / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (folder / "package" / "__init__.py").write_text("")
    monkeypatch.chdir(folder)
    watching = Watch(["package", "missing"], home=folder / "home")
    (inner / "x.py").write_text("")
    (folder / "hello.py").write_text("1111")
    assert changed(watching) == ["x.py"]
