"""People and programs that use a site while it is broken: they start runs, decide at gates, cancel, and try again."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.site import Site
from tests.faults import mill

HAPPENED, NOT_HAPPENED = "it_happened", "it_did_not_happen"
#: How often each decision is taken at a gate.
WEIGHTS = {"approve": 6, "again": 3, "reject": 1, "ripe": 1, "raw": 1}
#: How long one request is tried again, in seconds.
PATIENCE = 90.0
PEOPLE = 3
#: How often somebody sees a gate that has a deadline and lets it be.
LEFT_TO_THE_CLOCK = 0.85


@dataclass(frozen=True)
class Plan:
    """One run to start: when, with what, and when somebody cancels it, in seconds from the beginning."""

    number: int
    workflow: str
    input: dict[str, Any]
    at: float
    cancel_at: float | None


@dataclass(frozen=True)
class Answer:
    """What somebody said at a gate, and the site's word for it."""

    wait_id: str
    decision: str
    status: int


@dataclass
class Said:
    """Everything that callers have done, and what they were told."""

    started: dict[int, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    cancelled: dict[str, int] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def plans(dice: random.Random, *, runs: int, seconds: float) -> list[Plan]:
    """Return what is started during these seconds, in the order of starting."""
    moments = sorted(dice.uniform(0, seconds * 0.7) for _ in range(runs))
    return [_plan(dice, number, at, seconds) for number, at in enumerate(moments)]


def _plan(dice: random.Random, number: int, at: float, seconds: float) -> Plan:
    rest = round(dice.uniform(0.2, 1.0), 2)
    workflow = dice.choices(["grind", "age"], [3, 1])[0]
    given = {"sort": dice.choice(["fine", "coarse"]), "seconds": rest} if workflow == "grind" else {"seconds": rest}
    return Plan(number, workflow, given, at, at + dice.uniform(0.1, seconds / 2) if dice.random() < 0.1 else None)


class Callers:
    """All callers of one site; `end()` lets them go home."""

    def __init__(self, site: Site, *, seed: int, world: Path) -> None:
        self._seed, self._world = seed, world
        headers = {"Authorization": f"Bearer {site.token}"}
        limits = httpx.Limits(max_connections=40, max_keepalive_connections=40)
        self._http = httpx.Client(
            base_url=f"{site.url}/v1", headers=headers, timeout=15, trust_env=False, limits=limits
        )
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.said = Said()

    def begin(self, planned: list[Plan]) -> None:
        """Start everything that was planned, and the people who decide at gates."""
        self._began = time.monotonic()
        jobs: list[Callable[[], None]] = [lambda plan=plan: self._start(plan) for plan in planned]
        jobs += [lambda number=number: self._decide(number) for number in range(PEOPLE)]
        for job in jobs:
            thread = threading.Thread(target=self._guarded, args=(job,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        """Let everybody finish what they do."""
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._http.close()

    def crowd(self, dice: random.Random, *, people: int = 20) -> None:
        """Let many people decide at the same gate at the same time, not all alike."""
        gates = [gate for gate in self.gates(dice) if "effect" not in gate["payload"]]
        if not gates:
            return
        gate = dice.choice(gates)
        opinions = dice.sample(gate["decisions"], 2)
        decisions = [dice.choices(opinions, [3, 1])[0] for _ in range(people)]
        with ThreadPoolExecutor(people) as pool:
            list(pool.map(lambda decision: self._answer(gate, decision), decisions))

    def runs(self, dice: random.Random, most: int) -> list[str]:
        """Return some of the runs that were started."""
        known = list(self.said.started.values())
        return dice.sample(known, min(most, len(known)))

    def gates(self, dice: random.Random) -> list[dict[str, Any]]:
        """Return the open gates of some of the waiting runs."""
        listed = self._ask("GET", "/operators/mill/runs?status=waiting")
        rows = listed.json()["results"] if listed is not None and listed.status_code == 200 else []
        gates = []
        for row in dice.sample(rows, min(10, len(rows))):
            run = self._ask("GET", f"/operators/mill/runs/{row['run_id']}")
            found = run.json()["waits"] if run is not None and run.status_code == 200 else []
            open_still = [gate for gate in found if gate["kind"] == "approval" and gate["status"] == "pending"]
            gates += [{**gate, "run_id": row["run_id"]} for gate in open_still]
        return gates

    def _start(self, plan: Plan) -> None:
        self._sleep_until(plan.at)
        body = {"trigger": plan.workflow, "input": plan.input}
        # Whoever got no answer does not know whether the run was started; the key makes the second request the same.
        key = {"Idempotency-Key": f"storm-{self._seed}-{plan.number}"}
        answer = self._insist("POST", "/operators/mill/activate", body, headers=key)
        if answer.status_code not in (200, 201):
            self.said.strange.append(f"activate answered {answer.status_code}: {answer.text[:300]}")
            return
        run_id = answer.json()["run_id"]
        self.said.started[plan.number] = run_id
        if plan.cancel_at is not None:
            self._sleep_until(plan.cancel_at)
            gone = self._insist("DELETE", f"/operators/mill/runs/{run_id}")
            self.said.cancelled[run_id] = gone.status_code
            if gone.status_code not in (200, 409):
                self.said.strange.append(f"cancelling answered {gone.status_code}: {gone.text[:300]}")

    def _decide(self, number: int) -> None:
        dice = random.Random(f"{self._seed}/{number}")
        while not self._ended.is_set():
            for gate in self.gates(dice):
                if gate["deadline"] and dice.random() < LEFT_TO_THE_CLOCK:
                    continue
                self._answer(gate, self._opinion(gate, dice))
                if dice.random() < 0.3:
                    self._answer(gate, self._opinion(gate, dice))
            self._ended.wait(dice.uniform(0.05, 0.3))

    def _opinion(self, gate: dict[str, Any], dice: random.Random) -> str:
        if "effect" in gate["payload"]:
            name, run_id = gate["payload"]["effect"], gate["run_id"]
            seen = [item for item in mill.acts(self._world) if (item["run"], item["name"]) == (run_id, name)]
            return HAPPENED if seen else NOT_HAPPENED
        return dice.choices(gate["decisions"], [WEIGHTS[decision] for decision in gate["decisions"]])[0]

    def _answer(self, gate: dict[str, Any], decision: str) -> None:
        body = {"decision": decision, "wait_id": gate["id"]}
        body |= {"version": gate["version"], "payload_sha256": gate["payload_sha256"]}
        answer = self._ask("POST", f"/operators/mill/runs/{gate['run_id']}/resume", body)
        if answer is None or answer.status_code >= 500:
            return
        self.said.answers.append(Answer(gate["id"], decision, answer.status_code))
        if answer.status_code not in (200, 409):
            self.said.strange.append(f"resume answered {answer.status_code}: {answer.text[:300]}")

    def _insist(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = self._ask(method, path, body, **more)
            if answer is not None and answer.status_code < 500:
                return answer
            time.sleep(0.2)
        raise AssertionError(f"{method} {path} got no answer within {PATIENCE:g} s")

    def _ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response | None:
        try:
            answer = self._http.request(method, path, json=body, **more)
        except httpx.HTTPError as error:
            self.said.refused[type(error).__name__] += 1
            return None
        if answer.status_code >= 500:
            self.said.refused[str(answer.status_code)] += 1
        return answer

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            self.said.strange.append(f"A caller broke: {error!r}")

    def _sleep_until(self, moment: float) -> None:
        self._ended.wait(max(0.0, self._began + moment - time.monotonic()))
