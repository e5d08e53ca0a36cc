"""Prompts, in files of their own so that whoever owns the words need not touch code."""

from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@cache
def text(name: str) -> str:
    """Return the prompt of that name, such as `company_intel/research`."""
    return (_HERE / f"{name}.md").read_text(encoding="utf-8").strip()
