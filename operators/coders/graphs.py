"""The graph of a session: chunks of work, each with its phases and with the chunks that come before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Phase = Literal["coding", "testing", "review"]
PHASES: tuple[Phase, ...] = ("coding", "testing", "review")
#: Chunks of one session, texts of one list, and characters of one text.
MOST_CHUNKS, MOST_LINES, LONGEST = 200, 50, 2000
Lines = Annotated[list[Annotated[str, Field(max_length=LONGEST)]], Field(max_length=MOST_LINES)]


class Chunk(BaseModel):
    """One piece of work. Its phases go in the order coding, testing, review."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    name: str = Field(default="", max_length=200)
    description: str = Field(min_length=1, max_length=20_000)
    requirements: Lines = []
    test_requirements: Lines = []
    criteria: Lines = ["code quality", "test coverage", "security"]
    phases: list[Phase] = Field(default=[*PHASES], min_length=1)
    depends_on: list[str] = []


class Misdrawn(ValueError):
    """A graph that cannot be worked off; `field` leads to the fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field, self.message = field, message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def read(chunks: Any) -> list[Chunk]:
    """Return the chunks of a graph in an order in which each comes after those that it depends on.

    Raises:
        Misdrawn: one is malformed, is there twice, or depends on nobody or on itself; or there are none, or too many.
    """
    if not isinstance(chunks, list) or not 0 < len(chunks) <= MOST_CHUNKS:
        raise Misdrawn("chunks", f"a list of 1 to {MOST_CHUNKS} chunks is needed")
    found: dict[str, Chunk] = {}
    for position, given in enumerate(chunks):
        chunk = _chunk(given, f"chunks.{position}")
        if chunk.id in found:
            raise Misdrawn(f"chunks.{position}.id", f"{chunk.id!r} is there already")
        found[chunk.id] = chunk
    return [found[name] for name in _ordered(found)]


def _chunk(given: Any, path: str) -> Chunk:
    try:
        return Chunk.model_validate(given)
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        raise Misdrawn(".".join([path, *map(str, item["loc"])]), item["msg"]) from error


def _ordered(chunks: Mapping[str, Chunk]) -> Sequence[str]:
    for position, chunk in enumerate(chunks.values()):
        if lacking := [name for name in chunk.depends_on if name not in chunks]:
            raise Misdrawn(f"chunks.{position}.depends_on", f"there is no chunk {lacking[0]!r}")
    sorter = TopologicalSorter({name: chunk.depends_on for name, chunk in chunks.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise Misdrawn("chunks", f"these depend on each other: {' → '.join(error.args[1])}") from error
    # Of those that may be next, the one that stands first in the graph is.
    place = {name: position for position, name in enumerate(chunks)}
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=place.__getitem__)
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order
