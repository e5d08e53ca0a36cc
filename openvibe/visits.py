"""What names a visit of a node, so that what it does to the outside world is recognised when it is played again."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType


class Visits:
    """The visits of one play, each named by its step.

    A play that `starts_over` knows nothing of earlier ones, and neither do the ids of its steps: there the number of
    the visit names it, which is the same in every play.
    """

    def __init__(self, *, starts_over: bool = False, steps: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        self.starts_over = starts_over
        self._steps: dict[str, list[str]] = defaultdict(list)
        self._steps.update({node: list(known) for node, known in steps.items()})

    @property
    def steps(self) -> dict[str, list[str]]:
        """The steps of each node so far, for a play that goes on from where this one is kept."""
        return {node: list(known) for node, known in self._steps.items()}

    def begin(self, node: str, step_id: str) -> None:
        """Note that a node's turn has come; a step may say so again."""
        if self.starts_over and step_id not in self._steps[node]:
            self._steps[node].append(step_id)

    def name(self, node: str, step_id: str) -> str:
        """Return what names the visit of a node that this step is, in at most 64 characters."""
        if not self.starts_over:
            return step_id
        self.begin(node, step_id)
        number = self._steps[node].index(step_id) + 1
        return hashlib.sha256(f"{node}/{number}".encode()).hexdigest()
