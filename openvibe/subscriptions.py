"""Which event starts which workflow: names in one spelling, patterns, filters on the payload, and what it gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openvibe import misfits

_TYPE = re.compile(r"[a-z][a-z0-9_]*")
_PATTERN = re.compile(rf"\*|(\*|{_TYPE.pattern})\.(\*|{_TYPE.pattern}(\.{_TYPE.pattern})*)")


class Listen(BaseModel):
    """A subscription to other operators' events.

    `event` is `<operator>.<type>`, where each part may be `*`. `where` keeps only events whose payload has this value,
    or one of these values, in each named field. `takes` says which payload field fills which input; without it every
    payload field that bears an input's name does.

    Example:
        >>> Listen("company_intel.research_complete", where={"quality": ["high"]}, takes={"company": "company_name"})
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: str
    where: dict[str, Any] = Field(default_factory=dict)
    takes: dict[str, str] = Field(default_factory=dict)

    def __init__(self, event: str, **values: Any) -> None:
        try:
            super().__init__(event=event, **values)
        except ValidationError as error:
            raise misfits.explained(f"Listen({event!r})", error) from error

    def hears(self, name: str, payload: Mapping[str, Any], *, owner: str) -> bool:
        """Tell whether the event of that canonical name is one that a workflow of `owner` listens to."""
        return fits(self.event, name, owner=owner) and all(
            payload.get(field) in wanted if isinstance(wanted, list) else payload.get(field) == wanted
            for field, wanted in self.where.items()
        )

    def input(self, payload: Mapping[str, Any], inputs: Iterable[str]) -> dict[str, Any]:
        """Return the input that a payload stands for."""
        if self.takes:
            return {name: payload[field] for name, field in self.takes.items() if field in payload}
        return {name: payload[name] for name in inputs if name in payload}


def canonical(type_or_name: str, *, owner: str) -> str:
    """Return an emitted event's name in the one spelling: `<operator>.<type_with_underscores>`.

    `lead.qualified`, `self:lead_qualified` and `revenue_ops.lead_qualified`, emitted by `revenue_ops`, are one event:
    an operator emits events of its own only.

    Raises:
        ValueError: the name has characters that no event type has.
    """
    text = type_or_name.replace(":", ".")
    for own in (f"{owner}.", "self."):
        text = text.removeprefix(own)
    kind = text.replace(".", "_").replace("-", "_")
    if not _TYPE.fullmatch(kind):
        raise ValueError(f"{type_or_name!r} is no event type; use lower-case letters, digits, _ and .")
    return f"{owner}.{kind}"


def pattern(text: str, *, owner: str) -> str:
    """Return what a workflow of `owner` listens to in one spelling; `self` becomes the owner.

    Raises:
        ValueError: it is no event name.
    """
    spelled = text.replace(":", ".").replace("-", "_")
    if spelled.startswith("self."):
        spelled = f"{owner}.{spelled.removeprefix('self.').replace('.', '_')}"
    elif "." not in spelled and spelled not in ("*", "self"):
        spelled = f"{owner}.{spelled}"
    if not _PATTERN.fullmatch(spelled):
        raise ValueError(f"{text!r} is no event; write <operator>.<type>, where * stands for any")
    return spelled


def fits(pattern: str, name: str, *, owner: str) -> bool:
    """Tell whether a canonical event name is one that the pattern means.

    `lead.qualified`, listened to by `revenue_ops`, is `lead_qualified` of `revenue_ops` or, should there be an operator
    `lead`, its `qualified`.
    """
    if pattern == "*":
        return True
    operator, _, kind = name.partition(".")
    wanted_operator, _, wanted = pattern.partition(".")
    if wanted_operator in ("*", operator) and wanted.replace(".", "_") in ("*", "", kind):
        return True
    return "*" not in pattern and operator == owner and pattern.replace(".", "_") == kind
