"""Whose a subject is. The canonical dialect names its project; others mean `default`, or begin with whose they are."""

from __future__ import annotations

from openvibe.protocol.subjects import token

DEFAULT = "default"
#: How a subject of another project's agents begins: `tenant.<project>.`, followed by the subject as `default` has it.
PREFIX = "tenant"


def outward(project: str, subject: str) -> str:
    """Return the subject on which a project says what `default` says on this one; a canonical one names it already."""
    return subject if project == DEFAULT or subject.startswith("cg.") else f"{PREFIX}.{token(project)}.{subject}"


def inward(subject: str) -> tuple[str, str]:
    """Return whose a subject is, and the subject as `default` has it."""
    parts = subject.split(".", 2)
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == PREFIX else (DEFAULT, subject)


def everybodys(*patterns: str) -> tuple[str, ...]:
    """Return patterns that fit these subjects of `default` and of every other project."""
    return (*patterns, *(f"{PREFIX}.*.{pattern}" for pattern in patterns))
