"""Whose a subject is. The canonical dialect names its project; others mean `default`, or begin with whose they are."""

from __future__ import annotations

from openvibe.protocol import keys
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


def owner(subject: str) -> str:
    """Return whose a subject of any dialect is."""
    parts = subject.split(".", 3)
    return parts[2] if parts[0] == "cg" and len(parts) == 4 else inward(subject)[0]


def bucket(project: str, name: str) -> str:
    """Return the KV bucket in which a project keeps what `default` keeps in this one."""
    return name if project == DEFAULT else f"{PREFIX}-{token(project)}-{name}"


def context(project: str, name: str) -> str:
    """Return the KV bucket that mirrors this bucket of a project's shared context."""
    return bucket(project, keys.CONTEXT + name)


def everybodys(*patterns: str) -> tuple[str, ...]:
    """Return patterns that fit these subjects of `default` and of every other project."""
    return (*patterns, *(f"{PREFIX}.*.{pattern}" for pattern in patterns))
