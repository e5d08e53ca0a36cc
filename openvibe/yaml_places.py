"""Reads YAML into plain data and remembers where each part stands. No object is ever constructed from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from openvibe.errors import SetupError

#: How many values a file may have once its aliases are written out: some lines of YAML can mean billions.
MOST_VALUES = 100_000

#: The kinds of mappings and lists; every other one would construct something.
_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

Path = Sequence[str | int]


@dataclass(frozen=True)
class Place:
    """A line and a column of a file, counted from 1."""

    line: int
    column: int


class Places:
    """A YAML file: its data, and the place of each part."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        loader = yaml.SafeLoader(text)
        try:
            self._root = loader.get_single_node()
            self._loader = loader
            self._count = 0
            self.data = None if self._root is None else self._plain(self._root, (), frozenset())
        except yaml.MarkedYAMLError as error:
            at = _place(error.problem_mark)
            problem = error.problem or error.context or "is no YAML"
            raise SetupError(f"{name}:{at.line}:{at.column}: {problem}") from error
        except yaml.YAMLError as error:
            raise SetupError(f"{name}: is no YAML: {error}") from error
        finally:
            loader.dispose()

    def fault(self, path: Path, problem: str, *, key: bool = False) -> SetupError:
        """Return the error for a part of the file, or for its `key`: file, line, column and path."""
        at = self.place(path, key=key)
        where = f" {spelled(path)}:" if path else ""
        return SetupError(f"{self.name}:{at.line}:{at.column}:{where} {problem}")

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Return where a part stands or, if it is missing, what it is missing from."""
        node = self._root
        named: Any = None
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            named, node = found
        return _place((named if key and named is not None else node).start_mark) if node is not None else Place(1, 1)

    def _plain(self, node: Any, path: tuple[str | int, ...], above: frozenset[int]) -> Any:
        self._count += 1
        if self._count > MOST_VALUES:
            raise self._marked(node, f"the file has more than {MOST_VALUES} values, aliases written out")
        if id(node) in above:
            raise self._marked(node, "an alias stands within what it names")
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN:
            raise self._marked(node, f"a value of kind {node.tag!r} is not allowed")
        if isinstance(node, yaml.MappingNode):
            self._refuse_twins(node)
            self._loader.flatten_mapping(node)
            return {
                str(self._plain(key, path, above)): self._plain(value, path, above | {id(node)})
                for key, value in node.value
            }
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, path, above | {id(node)}) for item in node.value]
        return self._loader.construct_object(node)

    def _refuse_twins(self, node: yaml.MappingNode) -> None:
        seen: dict[str, Any] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise self._marked(key, "a key is a word, not a list or a mapping")
            if key.value in seen:
                first = _place(seen[key.value])
                raise self._marked(
                    key, f"key {key.value!r} stands here for the second time; first in line {first.line}"
                )
            seen[key.value] = key.start_mark

    def _marked(self, node: Any, problem: str) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def spelled(path: Path) -> str:
    """Return a path as people write it, such as `operators[0].workflows[1].id`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _child(node: Any, step: str | int) -> tuple[Any, Any] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    if isinstance(node, yaml.MappingNode):
        # The last of its name: a merged mapping stands before the keys that go before it.
        return next(((key, value) for key, value in reversed(node.value) if str(key.value) == str(step)), None)
    return None


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)
