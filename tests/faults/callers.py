"""People and programs that use a site while it is broken: they start runs, answer, cancel, fork, and try again.

They come by REST. Agents, and those who are asked by name, also come by the bus, which tells them nothing of the end.
"""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import nats.errors

from openvibe.protocol import sessions
from tests.acceptance.site import ENDED, Site
from tests.faults import mill
from tests.faults.plans import Plan

HAPPENED, NOT_HAPPENED = "it_happened", "it_did_not_happen"
#: How often each decision is taken at a gate.
WEIGHTS = {"approve": 6, "again": 3, "reject": 1, "ripe": 1, "raw": 1, "accept": 1, "ignore": 1}
#: How long one request is tried again, in seconds.
PATIENCE = 90.0
PEOPLE = 3
#: How often somebody sees a gate that has a deadline and lets it be.
LEFT_TO_THE_CLOCK = 0.85
#: How often somebody says a second thing at once, and comes by the bus where he may.
TWICE, BY_BUS = 0.3, 0.6


@dataclass(frozen=True)
class Answer:
    """What somebody said at a gate, or made of some work, and the site's word for it."""

    wait_id: str
    word: Any
    status: int


@dataclass
class Said:
    """Everything that callers have done, and what they were told."""

    started: dict[int, str] = field(default_factory=dict)
    forks: dict[str, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    results: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    posted: list[str] = field(default_factory=list)
    cancelled: dict[str, int] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


class Callers:
    """All callers of one site; `end()` lets them go home."""

    def __init__(self, site: Site, *, seed: int, world: Path) -> None:
        self._site, self._seed, self._world = site, seed, world
        headers = {"Authorization": f"Bearer {site.token}"}
        limits = httpx.Limits(max_connections=40, max_keepalive_connections=40)
        self._http = httpx.Client(
            base_url=f"{site.url}/v1", headers=headers, timeout=15, trust_env=False, limits=limits
        )
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._starters: list[threading.Thread] = []
        self._people: list[threading.Thread] = []
        self.said = Said()

    def begin(self, planned: list[Plan]) -> None:
        """Start everything that was planned, and the people who decide at gates."""
        self._began = time.monotonic()
        self._starters = [self._thread(lambda plan=plan: self._start(plan)) for plan in planned]
        self._people = [self._thread(lambda number=number: self._decide(number)) for number in range(PEOPLE)]

    @property
    def done(self) -> bool:
        """Whether everything that was planned has been started, cancelled and forked."""
        return not any(thread.is_alive() for thread in self._starters)

    def end(self) -> None:
        """Let everybody finish what they do."""
        self._ended.set()
        for thread in (*self._starters, *self._people):
            thread.join(PATIENCE)
        self._http.close()

    def crowd(self, dice: random.Random, *, people: int = 20) -> None:
        """Let many people decide at the same gate at the same time, not all alike."""
        gates = [gate for gate in self.waits(dice) if gate["kind"] == "approval" and "effect" not in gate["payload"]]
        if not gates:
            return
        gate = dice.choice(gates)
        opinions = dice.sample(gate["decisions"], 2)
        decisions = [dice.choices(opinions, [3, 1])[0] for _ in range(people)]
        with ThreadPoolExecutor(people) as pool:
            list(pool.map(lambda decision: self._answer(gate, decision), decisions))

    def runs(self, dice: random.Random, most: int) -> list[str]:
        """Return some of the runs that were started."""
        known = [*self.said.started.values(), *self.said.forks]
        return dice.sample(known, min(most, len(known)))

    def waits(self, dice: random.Random) -> list[dict[str, Any]]:
        """Return what some of the waiting runs ask of people and agents."""
        listed = self._ask("GET", "/operators/mill/runs?status=waiting")
        rows = listed.json()["results"] if listed is not None and listed.status_code == 200 else []
        waits = []
        for row in dice.sample(rows, min(10, len(rows))):
            run = self._ask("GET", f"/operators/mill/runs/{row['run_id']}")
            found = run.json()["waits"] if run is not None and run.status_code == 200 else []
            open_still = [
                wait for wait in found if wait["kind"] in ("approval", "work") and wait["status"] == "pending"
            ]
            waits += [{**wait, "run_id": row["run_id"]} for wait in open_still]
        return waits

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
        elif plan.forked:
            self._fork(plan, run_id)

    def _fork(self, plan: Plan, run_id: str) -> None:
        """Begin another run after one of the steps of this one, once it has completed."""
        path, status = f"/operators/mill/runs/{run_id}", ""
        while status not in ENDED and not self._ended.wait(0.5):
            status = self._insist("GET", path).json()["status"]
        if status != "completed":
            return
        *steps, _ = self._insist("GET", f"{path}/steps?limit=200").json()["steps"]
        body = {"step_id": random.Random(f"{self._seed}/{plan.number}").choice(steps)["step_id"]}
        key = {"Idempotency-Key": f"fork-{self._seed}-{plan.number}"}
        answer = self._insist("POST", f"{path}/forks", body, headers=key)
        if answer.status_code not in (200, 201):
            self.said.strange.append(f"forking answered {answer.status_code}: {answer.text[:300]}")
            return
        self.said.forks[answer.json()["run_id"]] = run_id

    def _decide(self, number: int) -> None:
        dice = random.Random(f"{self._seed}/{number}")
        while not self._ended.is_set():
            for wait in self.waits(dice):
                if wait["deadline"] and dice.random() < LEFT_TO_THE_CLOCK:
                    continue
                for _ in range(2 if dice.random() < TWICE else 1):
                    self._speak(wait, dice)
            self._ended.wait(dice.uniform(0.05, 0.3))

    def _speak(self, wait: dict[str, Any], dice: random.Random) -> None:
        by_bus = dice.random() < BY_BUS
        if wait["kind"] == "work":
            result = {"work_id": wait["id"], "summary": f"carted in {dice.random()} hours"}
            self.said.results[wait["id"]].append(result)
            if by_bus:
                self._post(wait, "results", "result.success", result)
            else:
                self._send(wait, f"waits/{wait['id']}/result", {"result": result}, word=result)
            return
        decision = self._opinion(wait, dice)
        if by_bus and wait["approver"]:
            who = "approved_by" if decision == "approve" else "rejected_by"
            vote = {"gate_id": wait["id"], who: wait["approver"], **_quote(wait)}
            self._post(wait, "approvals", "approval.granted" if decision == "approve" else "approval.rejected", vote)
        else:
            self._answer(wait, decision)

    def _post(self, wait: dict[str, Any], channel: str, kind: str, payload: dict[str, Any]) -> None:
        """Say something twice over the bus; what it has not taken may have been said all the same."""
        run_id, now = wait["run_id"], datetime.now(UTC)
        told = sessions.message(kind, payload, id=uuid.uuid4().hex, run_id=run_id, now=now)
        body = json.dumps(told).encode()
        try:
            self._site.post(sessions.subject(run_id, channel), body, body)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            self.said.refused[f"bus {type(error).__name__}"] += 1
        else:
            self.said.posted.append(told["id"])

    def _opinion(self, gate: dict[str, Any], dice: random.Random) -> str:
        if "effect" in gate["payload"]:
            name, run_id = gate["payload"]["effect"], gate["run_id"]
            seen = [item for item in mill.acts(self._world) if (item["run"], item["name"]) == (run_id, name)]
            return HAPPENED if seen else NOT_HAPPENED
        return dice.choices(gate["decisions"], [WEIGHTS[decision] for decision in gate["decisions"]])[0]

    def _answer(self, gate: dict[str, Any], decision: str) -> None:
        self._send(gate, "resume", {"decision": decision, "wait_id": gate["id"], **_quote(gate)}, word=decision)

    def _send(self, wait: dict[str, Any], place: str, body: dict[str, Any], *, word: Any) -> None:
        answer = self._ask("POST", f"/operators/mill/runs/{wait['run_id']}/{place}", body)
        if answer is None or answer.status_code >= 500:
            return
        self.said.answers.append(Answer(wait["id"], word, answer.status_code))
        if answer.status_code not in (200, 409):
            self.said.strange.append(f"{place} answered {answer.status_code}: {answer.text[:300]}")

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

    def _thread(self, job: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._guarded, args=(job,), daemon=True)
        thread.start()
        return thread

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            self.said.strange.append(f"A caller broke: {error!r}")

    def _sleep_until(self, moment: float) -> None:
        self._ended.wait(max(0.0, self._began + moment - time.monotonic()))


def _quote(gate: dict[str, Any]) -> dict[str, Any]:
    return {"version": gate["version"], "payload_sha256": gate["payload_sha256"]}
