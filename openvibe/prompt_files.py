"""Prompts in files, and templates whose `{field}` stands for a state field's value.

A prompt file is Markdown. Under a line `# System` stands what the model is, word by word; under `# User` what it is
asked, a template. A file with neither line is all system.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_HEADING = re.compile(r"^#\s*(system|user)\s*$", re.IGNORECASE | re.MULTILINE)
_SLOT = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


def parts(path: Path) -> tuple[str, str]:
    """Return a prompt file's system and user parts; either may be empty.

    Raises:
        ValueError: it cannot be read, or is no prompt.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error
    try:
        return split(text)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


def split(text: str) -> tuple[str, str]:
    """Return the system and user parts of a text; without headings all of it is the first.

    Raises:
        ValueError: it says one part twice, or has words before its first part.
    """
    before, *rest = _HEADING.split(text)
    if not rest:
        return before.strip(), ""
    names = [name.lower() for name in rest[::2]]
    if before.strip() or len(set(names)) < len(names):
        raise ValueError("a prompt begins with `# System` or `# User` and says each once")
    found = dict(zip(names, (part.strip() for part in rest[1::2]), strict=True))
    return found.get("system", ""), found.get("user", "")


def slots(template: str) -> list[str]:
    """Return the fields that a template names, each once."""
    return list(dict.fromkeys(match[1] for match in _SLOT.finditer(template) if match[1]))


def filled(template: str, state: Mapping[str, Any]) -> str:
    """Return a template with the state's values in it; `{{` and `}}` stand for single braces."""

    def value(match: re.Match[str]) -> str:
        return shown(state.get(match[1])) if match[1] else match[0][0]

    return _SLOT.sub(value, template)


def filled_all(template: Any, state: Mapping[str, Any]) -> Any:
    """Fill every text of a template of any shape; one that is a slot and nothing else becomes the value itself."""
    if isinstance(template, dict):
        return {key: filled_all(item, state) for key, item in template.items()}
    if isinstance(template, list):
        return [filled_all(item, state) for item in template]
    if not isinstance(template, str):
        return template
    whole = _SLOT.fullmatch(template)
    return state.get(whole[1]) if whole and whole[1] else filled(template, state)


def texts(template: Any) -> Iterable[str]:
    """Yield every text of a template of any shape."""
    if isinstance(template, dict):
        template = list(template.values())
    if isinstance(template, list):
        for item in template:
            yield from texts(item)
    elif isinstance(template, str):
        yield template


def shown(value: Any) -> str:
    """Return a value as a model reads it: text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False, default=str)


def listing(fields: Iterable[str], state: Mapping[str, Any]) -> str:
    """Return the fields that have a value, each under its name: what a node asks about unless its prompt says more."""
    told = [
        f"{name.replace('_', ' ').capitalize()}:\n{shown(state[name])}"
        for name in fields
        if state.get(name) not in (None, "", [], {})
    ]
    return "\n\n".join(told) or "Begin."
