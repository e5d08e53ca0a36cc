"""Names for new things. Every id is one NATS subject token: letters, digits, `_` and `-`."""

from __future__ import annotations

import secrets
from datetime import datetime

_ALPHABET = "0123456789abcdefghijkmnpqrstuvwxyz"


def run_id(now: datetime) -> str:
    """Return a run id such as `run_2026-02-16_k3v9x0q2mz`: readable, and unique with 50 random bits."""
    return f"run_{now:%Y-%m-%d}_{random_text(10)}"


def random_text(length: int) -> str:
    """Return `length` characters from an alphabet without look-alikes."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
