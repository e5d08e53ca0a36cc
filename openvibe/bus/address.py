"""Servers' addresses, as they may be shown."""

from __future__ import annotations


def without_password(url: str) -> str:
    """Return the address without its user and password."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
