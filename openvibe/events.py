"""The facts that the engine reports while it plays a workflow, in the words of the timeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

RUN_COMPLETED = "run.completed"
STEP_STARTED = "step.started"
STEP_FINISHED = "step.finished"
STEP_FAILED = "step.failed"
ATTEMPT_FAILED = "attempt.failed"
GATE_OPENED = "gate.opened"
LOG = "log"


@dataclass(frozen=True, slots=True)
class Event:
    """One past fact. `data` holds JSON-compatible values only."""

    kind: str
    node: str = ""
    step_id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one model call used. `cost_usd` is None when the model's price is not known."""

    model: str
    provider: str
    tokens_in: int
    tokens_out: int
    cost_usd: Decimal | None
    simulated: bool = False


@dataclass(slots=True)
class Figures:
    """What a run has used so far or, in a commit, by how much each figure grows."""

    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced_calls: int = 0
    llm_calls: int = 0
    nodes_executed: int = 0
    nodes_failed: int = 0

    def add(self, usage: Usage) -> None:
        """Count one model call."""
        self.llm_calls += 1
        self.tokens_in += usage.tokens_in
        self.tokens_out += usage.tokens_out
        if usage.cost_usd is None:
            self.unpriced_calls += 1
        else:
            self.cost_usd += usage.cost_usd
