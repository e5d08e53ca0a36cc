"""What a tool's result card says: the result itself, a failure, and what is to follow.

A card may hold `{"result": …}` or `{"error": {"code", "message"}}`, as tools of the dialect `cg` write it; anything
else is the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from openvibe import canonical
from openvibe.protocol.commands import CONTROL, After


@dataclass(frozen=True)
class Result:
    """A result, read. `after_execution` is what the result itself says, or else what the message did."""

    value: Any
    error: Any
    after_execution: str

    @classmethod
    def read(cls, content: Any, after_execution: str) -> Result:
        """Return what a card's content says."""
        written = isinstance(content, dict) and ("result" in content or "error" in content)
        value, error = (content.get("result"), content.get("error")) if written else (content, None)
        control = value.get(CONTROL) if isinstance(value, dict) else None
        if control is not None:
            value = {name: item for name, item in value.items() if name != CONTROL}
        chosen = str(control.get("after_execution")) if isinstance(control, dict) else ""
        return cls(value, error, chosen if chosen in get_args(After) else after_execution)

    def failure(self, status: str) -> str:
        """Return the words for a result that is none."""
        told = self.error if self.error is not None else self.value
        if isinstance(told, dict):
            parts = [str(told[name]) for name in ("code", "message") if told.get(name)]
            told = ": ".join(parts) or (canonical.dumps(told) if told else "")
        return str(told or status)
