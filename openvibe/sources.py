"""Where operators come from: modules such as `operators.catalog`, files such as `./hello.py` or `./operators.yaml`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

from openvibe import config
from openvibe.errors import SetupError
from openvibe.marks import MARK, OperatorMark
from openvibe.registry import OperatorDefinition, define

YAML = (".yaml", ".yml")
FILES = (".py", *YAML)

_given: ContextVar[list[type] | None] = ContextVar("given", default=None)


def operators(sources: Sequence[str], *, only: Sequence[str] = ()) -> list[OperatorDefinition]:
    """Return the operators that these sources offer, each once, in order.

    `only` keeps those with these ids.

    Raises:
        SetupError: a source cannot be read, offers nothing or holds a mistake, or none offers an id of `only`.
    """
    definitions: list[OperatorDefinition] = []
    for source in sources:
        found = offered(source)
        if not found and not only:
            raise SetupError(
                f"{source!r} offers no operators: give it a list called OPERATORS, or name another module or file in "
                "OPENVIBE_OPERATORS."
            )
        # The same one again is no second one: a script and the module of its class both offer it.
        definitions += [item for item in found if not any(item is other for other in definitions)]
    known = {item.spec.id for item in definitions}
    if lacking := [name for name in only if name not in known]:
        where = ", ".join(sources)
        offer = ", ".join(sorted(known)) or "none"
        raise SetupError(f"There is no operator {lacking[0]!r} in {where}; there is: {offer}.")
    return [item for item in definitions if not only or item.spec.id in only]


def offered(source: str) -> tuple[OperatorDefinition, ...]:
    """Return the operators of one module or file.

    These are the classes that it gives to `serve()` while it is read, else those of its list `OPERATORS`, else every
    operator that its names lead to.
    """
    return _offered(str(_path(source)) if is_file(source) else source)


def take(classes: Sequence[type]) -> bool:
    """Keep classes that a source gives to `serve()` while it is read; False when nobody reads one."""
    given = _given.get()
    if given is not None:
        given.extend(classes)
    return given is not None


def is_file(source: str) -> bool:
    """Tell whether a source is a file's path and no module's name."""
    return source.endswith(FILES) or os.sep in source


def location(source: str) -> Path | None:
    """Return the file of a source or, for a package, its folder; None if it is nowhere. Nothing is imported."""
    if is_file(source):
        return _path(source)
    path: Sequence[str] | None = [*sys.path, os.getcwd()]
    name, rest = "", source.split(".")
    spec = None
    for part in rest:
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    if path:
        return Path(next(iter(path)))
    return Path(spec.origin) if spec and spec.origin else None


@cache
def _offered(source: str) -> tuple[OperatorDefinition, ...]:
    if source.endswith(YAML):
        return tuple(config.load(source))
    with _reading() as given:
        module = _read(source)
    classes = given or getattr(module, "OPERATORS", None) or filter(_is_operator, vars(module).values())
    try:
        return tuple(_defined(cls) for cls in dict.fromkeys(classes))
    except SetupError as error:
        raise SetupError(f"{source!r} holds a mistake: {error}") from error


@cache
def _defined(cls: type) -> OperatorDefinition:
    return define(cls)


@contextmanager
def _reading() -> Iterator[list[type]]:
    given: list[type] = []
    token = _given.set(given)
    try:
        yield given
    finally:
        _given.reset(token)


def _read(source: str) -> ModuleType:
    # At the end: what lies in somebody's folder must not stand in for a package of the same name.
    _append(Path.cwd())
    try:
        return _from_file(Path(source)) if is_file(source) else importlib.import_module(source)
    except SetupError as error:
        raise SetupError(f"{source!r} holds a mistake: {error}") from error
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {error}{_place(error)}"
        raise SetupError(f"{source!r} cannot be imported: {told}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    _append(path.parent)
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(path: Path) -> str:
    """The name by which others in its folder import it, unless that is somebody else's."""
    known = getattr(sys.modules.get(path.stem), "__file__", None)
    found = PathFinder.find_spec(path.stem)
    origin = known or (found.origin if found else None)
    taken = path.stem in sys.builtin_module_names or (path.stem in sys.modules and known is None)
    if path.stem.isidentifier() and not taken and (origin is None or Path(origin).resolve() == path):
        return path.stem
    return f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _append(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _place(error: BaseException) -> str:
    """Where it happened, which a syntax error says by itself."""
    if isinstance(error, SyntaxError) or not error.__traceback__:
        return ""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = frame.filename == __file__ or "importlib" in frame.filename
    return "" if ours else f" ({frame.filename}, line {frame.lineno})"


def _path(source: str) -> Path:
    return Path(source).expanduser().resolve()


def _is_operator(item: object) -> bool:
    return isinstance(item, type) and isinstance(vars(item).get(MARK), OperatorMark)
