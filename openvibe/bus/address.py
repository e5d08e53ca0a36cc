"""Servers' addresses, as they are given and as they may be shown."""

from __future__ import annotations


def servers(url: str) -> list[str]:
    """Return the addresses of a text that holds one, or several separated by commas: the servers of one cluster."""
    return [part.strip() for part in url.split(",") if part.strip()]


def without_password(url: str) -> str:
    """Return the address, or the addresses, without their users and passwords."""
    return ",".join(map(_shown, servers(url)))


def _shown(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
