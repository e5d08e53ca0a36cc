"""Texts of messages, as a database can keep them."""

from __future__ import annotations


def storable(text: str) -> str:
    """Return a text as a database keeps it: what none keeps in a text becomes a mark."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
