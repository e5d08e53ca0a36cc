"""A workflow to walk through in all ways, somebody who plays it part by part, and a model of where it must stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from openvibe import human_in_the_loop, node, operator, outcomes, workflow
from operators.services import leases
from operators.services.execution import Performance

HOUR = timedelta(hours=1)
#: Who is asked together, and how many of them have to agree.
APPROVERS, QUORUM = ("ann", "ben", "cem"), 2
#: Where a run can go from each status.
ROADS = {
    "queued": {"running", "cancelled"},
    "running": {"queued", "waiting", "completed", "failed", "cancelled"},
    "waiting": {"queued", "cancelled"},
    "failed": {"queued"},
    "completed": set(),
    "cancelled": set(),
}

#: Whether the shaky node fails, and how often the world was acted on.
world = {"broken": False, "acts": 0}


def act() -> int:
    world["acts"] += 1
    return world["acts"]


@operator(id="walker")
class Walker:
    count: int = 0
    verdict: str = ""
    review: str = ""

    @workflow(id="walk", inputs=())
    class Walk:
        @node
        def first(self, state):
            return {"count": state["count"] + 1}

        @human_in_the_loop(
            prompt="Go on?", timeout=HOUR, decisions=("approve", "later", "reject"), on_timeout="approve"
        )
        def verdict(self, state):
            return {"count": state["count"]}

        @human_in_the_loop(prompt="Agreed?", approvers=APPROVERS, quorum=QUORUM, timeout=HOUR, on_timeout="approve")
        def review(self, state):
            return {"count": state["count"]}

        @node
        def rest(self, state):
            return {"count": state["count"] + 1, "wait_duration": HOUR}

        @node
        def shaky(self, state, ctx):
            ctx.effect("act", act)
            if world["broken"]:
                raise RuntimeError("the world is away")
            return {"count": state["count"] + 1}


class Worker:
    """Somebody who has claimed the run, in the middle of playing it; he may have lost the claim by now."""

    def __init__(self, claim: leases.Claim) -> None:
        self.epoch = claim.epoch
        self.over = False
        self._performance = Performance(claim)
        self._parts = self._performance._progress(self._performance._workflow)
        self._played: outcomes.Progress | None = None

    @property
    def holds_a_part(self) -> bool:
        return self._played is not None

    def play(self) -> None:
        """Play the next part, and commit nothing yet."""
        try:
            self._played = next(self._parts)
        except (StopIteration, leases.ClaimLost):
            self.over = True

    def commit(self) -> outcomes.Progress:
        played, self._played = self._played, None
        assert played is not None
        self.over = played.outcome is not None
        try:
            self._performance._commit(played)
        except leases.ClaimLost:
            self.over = True
            raise
        return played

    def leave(self) -> None:
        self._parts.close()


@dataclass
class Model:
    """What must be true of the run."""

    status: str = "queued"
    epoch: int = 0
    losses: int = 0
    #: What it waits for: `verdict`, `review` or `rest`; and what it has waited for.
    waits_for: str = ""
    passed: list[str] = field(default_factory=list)
    decision: str = ""
    #: What those who are asked together have said so far, by their place.
    votes: dict[int, str] = field(default_factory=dict)
    broken_by: str = ""

    @property
    def retryable(self) -> bool:
        return self.status == "failed" and self.broken_by != "rejected"

    def go(self, status: str) -> None:
        assert status in ROADS[self.status], f"{self.status} → {status}"
        self.status = status

    @property
    def agreed(self) -> str:
        """What those who are asked together have come to; nothing while they may still come to one or the other."""
        said = list(self.votes.values())
        if said.count("approve") >= QUORUM:
            return "approve"
        return "reject" if said.count("reject") > len(APPROVERS) - QUORUM else ""

    def following(self) -> str:
        """Return where the run stops next."""
        if "verdict" not in self.passed:
            return "verdict"
        if self.decision == "reject":
            return "rejected"
        if "review" not in self.passed:
            return "review"
        if self.agreed == "reject":
            return "rejected"
        if "rest" not in self.passed:
            return "rest"
        return "broken" if world["broken"] else "end"
