"""Arguments that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from openvibe.errors import SetupError

#: What commands are added to; argparse keeps its type to itself.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: What is read when neither an argument nor `OPENVIBE_OPERATORS` names a source: the catalogue.
SHIPPED = "operators.catalog"
#: What a server has beside it, for sessions of agents elsewhere.
BESIDE = "operators.coders"


def command(
    commands: Commands, name: str, call: Callable[[argparse.Namespace], int], *, help: str
) -> argparse.ArgumentParser:
    """Add a command and return its parser."""
    parser = commands.add_parser(name, help=help, description=help)
    # What names no type of its own is text, and is sent or written as UTF-8.
    parser.register("type", None, _text)
    parser.set_defaults(command=call)
    return parser


def add_sources(parser: argparse.ArgumentParser, *, served: bool = False) -> None:
    """Say where definitions are read from, and which of them count."""
    shipped = f"{SHIPPED} and {BESIDE}" if served else f"{SHIPPED}: a server has {BESIDE} beside it"
    parser.add_argument(
        "--modules",
        type=listed,
        default=(),
        metavar="a,b",
        help=f"modules or files with operators, such as ./hello.py (else $OPENVIBE_OPERATORS, else {shipped})",
    )
    parser.add_argument("--operators", type=listed, default=(), metavar="a,b", help="only the operators with these ids")


def add_server(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Say which server is asked."""
    otherwise = "the definitions are read here" if optional else "$OPENVIBE_URL, else this machine's"
    parser.add_argument("--url", default="", help=f"address of an OpenVibe (without it: {otherwise})")


def add_values(parser: argparse.ArgumentParser, *, option: str, help: str) -> None:
    """Take values as `name=value`, and as a JSON object."""
    parser.add_argument(option, dest="pairs", action="append", default=[], metavar="name=value", help=help)
    parser.add_argument("--json", default="", metavar="'{…}'", help="the same as a JSON object")


def sources(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the modules and files whose definitions are read."""
    return options.modules or listed(os.environ.get("OPENVIBE_OPERATORS", "").strip() or SHIPPED)


def listed(text: str) -> tuple[str, ...]:
    """Read names that are separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def values(options: argparse.Namespace, *, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given values; a pair's text is read as JSON where the field is no text.

    Raises:
        SetupError: `--json` is no JSON object, or a pair has no `=`.
    """
    found = _object(options.json) if options.json else {}
    for pair in options.pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise SetupError(f"{pair!r} is no name=value, such as company_name=Stripe")
        found[name] = _value(text, schema.get("properties", {}).get(name, {}))
    return found


def _text(given: str) -> str:
    # Bytes that are no UTF-8 arrive as halves of surrogate pairs, as they do in names of files.
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise SetupError(f"{given!r} is no text: it must be UTF-8.") from error
    return given


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise SetupError(f"--json is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise SetupError('--json must be an object, such as \'{"company_name": "Stripe"}\'')
    return found


def _value(text: str, field: Mapping[str, Any]) -> Any:
    kinds: Sequence[Any] = [field.get("type"), *(item.get("type") for item in field.get("anyOf", ()))]
    if "string" in kinds:
        return text
    try:
        return json.loads(text)
    except ValueError:
        # The server knows the field's type and says what was expected.
        return text
