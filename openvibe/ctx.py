"""The third parameter of a node: what a step may do besides returning an update."""

from __future__ import annotations

import enum
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from openvibe import canonical, groups, loop, subscriptions
from openvibe.errors import EffectUnknown, RunError, SetupError, UncertainServiceError, WrongUpdate
from openvibe.events import LOG, Event
from openvibe.fields import kept
from openvibe.host import Change, Host
from openvibe.outcomes import SEATS, Rule
from openvibe.protocol.keys import BUCKETS
from openvibe.session import Session, StepNotes

#: How long the key of an effect may be, in characters.
MOST_KEY = 200


class _NotDone(enum.Enum):
    NOT_DONE = "not done"


#: What a `reconcile` hook returns when the effect certainly did not happen.
NOT_DONE: Final = _NotDone.NOT_DONE

#: Pauses the run for an answer from elsewhere, and returns the answer.
Ask = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Ctx:
    """A step's hand to the world. Everything it emits and puts is told with the step's own commit, or not at all."""

    session: Session
    node: str
    step_id: str
    notes: StepNotes
    ask: Ask

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.session.run.id

    @property
    def operator_id(self) -> str:
        """The operator's id."""
        return self.session.run.operator_id

    @property
    def workflow_id(self) -> str:
        """The workflow's id."""
        return self.session.run.workflow_id

    @property
    def context(self) -> SharedContext:
        """The context that all operators of the project share."""
        return SharedContext(self.session, self.notes, self.node, self.ask)

    def now(self) -> datetime:
        """Return the time, in UTC. A node reads the clock here, so that a test can set it."""
        return self.session.host.now()

    def log(self, message: str, **data: Any) -> None:
        """Say something on the run's timeline, at once; `data` is shown with it."""
        self.notes.check()
        told = {"message": message, **kept(f"What node {self.node!r} logged", data)}
        self._host.record(Event(LOG, node=self.node, step_id=self.step_id, data=told))

    def emit(self, type: str, payload: Mapping[str, Any] | None = None) -> None:
        """Tell other operators that something has happened; workflows that listen to it start.

        `type` is an event type of this operator's, such as `lead_qualified`.

        Raises:
            WrongUpdate: the type has characters that no event type has.
        """
        try:
            name = subscriptions.canonical(type, owner=self.operator_id)
        except ValueError as error:
            raise WrongUpdate(f"Node {self.node!r} emitted {error}") from error
        self.notes.emitted.append((name, kept(f"What node {self.node!r} emitted", dict(payload or {}))))

    def idempotency_key(self, key: str) -> str:
        """Return what an outside system may be given to recognise a repeated call: one text per run, visit and key."""
        text = f"{self.run_id}/{self.session.visits.name(self.node, self.step_id)}/{key}"
        return f"openvibe-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def effect(self, key: str, call: Callable[[], Any], *, reconcile: Callable[[], Any] | None = None) -> Any:
        """Do something to the outside world once, and return its result (as JSON) on every replay.

        An exception from `call` means that nothing was done; the effect is tried again with the step. A crash in the
        middle, or an `UncertainServiceError`, leaves it unknown: then `reconcile` is asked, which returns the result
        if the effect happened, `NOT_DONE` if it did not, and None if it cannot tell. What nobody can tell, a person
        is asked.

        Raises:
            RunError: the key is longer than `MOST_KEY` characters, or holds what no database keeps.

        Example:
            >>> ctx.effect("charge", lambda: shop.charge(order, key=ctx.idempotency_key("charge")))
        """
        self.notes.check()
        where = {"node": self.node, "step_id": self.step_id, "key": _keepable(self.node, key)}
        known = self._host.effect(**where)
        if known.state == "confirmed":
            return known.result
        if known.state == "unknown":
            found = self._found(where, known.attempt, reconcile)
            if found is not NOT_DONE:
                return found
            self._host.effect(**where)
        return self._done(where, known.attempt, call, reconcile)

    def _done(
        self, where: dict[str, str], attempt: int, call: Callable[[], Any], reconcile: Callable[[], Any] | None
    ) -> Any:
        try:
            result = _called(call)
        except UncertainServiceError:
            found = self._found(where, attempt, reconcile)
            if found is NOT_DONE:
                raise
            return found
        except Exception:
            self._host.settle(**where, state="failed")
            raise
        return self._settled(where, result)

    def _found(self, where: dict[str, str], attempt: int, reconcile: Callable[[], Any] | None) -> Any:
        """Return the result of an effect that may have happened, or `NOT_DONE`; raises if nobody can tell."""
        found = _called(reconcile) if reconcile else None
        if found is None:
            self.notes.pause = EffectUnknown(self.node, where["key"], self.step_id, attempt)
            raise self.notes.pause
        if found is NOT_DONE:
            self._host.settle(**where, state="failed")
            return NOT_DONE
        return self._settled(where, found)

    def _settled(self, where: dict[str, str], result: Any) -> Any:
        done = kept(f"What effect {where['key']!r} of node {self.node!r} returned", result)
        self._host.settle(**where, state="confirmed", result=done)
        return done

    @property
    def _host(self) -> Host:
        # An asynchronous node calls from the loop's thread, where a database refuses to work.
        return loop.aside(self.session.host)

    def request(
        self, operator: str, capability: str, payload: Mapping[str, Any] | None = None, *,
        timeout: timedelta | None = None,
    ) -> Any:  # fmt: skip
        """Ask another operator and return its answer. The run waits for it, and holds nothing meanwhile.

        The node's body runs again from its top when the answer is there, so what stands before a request is done twice
        unless it is an effect.

        Raises:
            RunError: nobody offers the capability, the other run failed, or no answer came before `timeout`.
        """
        self.notes.check()
        answer = self.ask({**self._asked(timeout), **self._question(operator, capability, payload)})
        if answer.get("error"):
            raise RunError(f"Node {self.node!r} asked {operator} for {capability}: {answer['error']}")
        return answer.get("result")

    def request_each(
        self, operators: Sequence[str], capability: str, payload: Mapping[str, Any] | None = None, *,
        rule: Rule | None = None, quorum: int = 0, timeout: timedelta | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Ask several operators the same at the same time, and return the answers by operator.

        By `rule` the run goes on when `all` have answered (the default), after `any` one good answer, or after so many
        as `quorum` says; who is later is not listened to. It is waited for as in `request`.

        Example:
            >>> offers = ctx.request_each(["north", "south"], "price", {"loaves": 3}, rule="any")

        Raises:
            RunError: too few gave a good answer; the message tells what the others said.
            SetupError: the rule asks for more answers than there are operators, or one is asked twice.
        """
        self.notes.check()
        where = f"Node {self.node!r} asked {', '.join(operators)} for {capability}"
        if not operators or len(set(operators)) < len(operators):
            raise SetupError(f"{where}: name each operator once")
        chosen, needed = groups.needed(where, rule, quorum, len(operators))
        asked = [self._question(operator, capability, payload) for operator in operators]
        told = self.ask({**self._asked(timeout), "rule": chosen, "needed": needed, SEATS: asked})
        heard = {operator: answer for operator, answer in zip(operators, told["answers"], strict=True) if answer}
        good = {operator: answer["result"] for operator, answer in heard.items() if not answer["error"]}
        if len(good) < needed:
            faults = "; ".join(
                f"{operator}: {answer['error']}" for operator, answer in heard.items() if answer["error"]
            )
            raise RunError(f"{where}; {len(good)} of the {needed} good answers came: {faults}")
        return good

    def _asked(self, timeout: timedelta | None) -> dict[str, Any]:
        return {"kind": "reply", "node": self.node, "timeout_seconds": timeout.total_seconds() if timeout else None}

    def _question(self, operator: str, capability: str, payload: Mapping[str, Any] | None) -> dict[str, Any]:
        told = kept(f"What node {self.node!r} asked {operator}", dict(payload or {}))
        asked = {"operator": operator, "capability": capability, "payload": told}
        return {"prompt": f"{capability} of {operator}", "payload": asked}


@dataclass(frozen=True)
class SharedContext:
    """Values that all operators of a project read and write, in five buckets. A put commits with its step."""

    session: Session
    notes: StepNotes
    node: str
    ask: Ask

    def get(self, bucket: str, key: str, default: Any = None) -> Any:
        """Return a value, this step's own put included."""
        known_bucket(bucket)
        if (bucket, key) in self.notes.puts:
            # A copy: what is changed in place is not put.
            found = canonical.jsonable(self.notes.puts[bucket, key])
        else:
            found = loop.aside(self.session.host).value(bucket, key)
        return default if found is None else found

    def put(self, bucket: str, key: str, value: Any) -> None:
        """Keep a value (any JSON)."""
        known_bucket(bucket)
        self.notes.puts[bucket, key] = kept(f"What node {self.node!r} put", value)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return a bucket's keys that begin with `prefix`, sorted."""
        known_bucket(bucket)
        own = {key for place, key in self.notes.puts if place == bucket and key.startswith(prefix)}
        return sorted(own | set(loop.aside(self.session.host).keys(bucket, prefix)))

    def entry(self, bucket: str, key: str) -> Change:
        """Return a value with its revision, which is 0 if it never was; without what this step has put."""
        return loop.aside(self.session.host).entry(known_bucket(bucket), key)

    def watch(self, bucket: str, key: str, *, after: int, timeout: timedelta | None = None) -> Change:
        """Return the first change of a value after the revision that was seen; 0 for none.

        The run waits for it, and holds nothing meanwhile. The node's body runs again from its top when the change is
        there, and each watch returns then what it has returned before.

        Example:
            >>> seen = ctx.context.entry("leads", "ada/score")
            >>> while seen.value is None:
            ...     seen = ctx.context.watch("leads", "ada/score", after=seen.revision)

        Raises:
            RunError: it did not change before `timeout`.
        """
        self.notes.check()
        place = watched(known_bucket(bucket), key)
        answer = self.ask(
            {
                "kind": "change",
                "node": self.node,
                "prompt": f"A change of {place}",
                "payload": {"bucket": bucket, "key": key, "after": after},
                "timeout_seconds": timeout.total_seconds() if timeout is not None else None,
            }
        )
        if answer.get("watched") != place:
            raise RunError(
                f"Node {self.node!r} asked in another order than before; what it asks must not hang on values"
            )
        if answer["error"]:
            raise RunError(f"Node {self.node!r} watched {place}: {answer['error']}")
        return Change(**answer["result"])


def known_bucket(bucket: str) -> str:
    """Return a bucket's name; raises `RunError` if there is none of that name."""
    if bucket not in BUCKETS:
        raise RunError(f"The shared context has no bucket {bucket!r}; use one of: {', '.join(BUCKETS)}")
    return bucket


def watched(bucket: str, key: str) -> str:
    """Return how the answer to a watch names what was watched."""
    return f"{bucket}/{key}"


def _keepable(node: str, key: str) -> str:
    if len(key) > MOST_KEY:
        raise RunError(
            f"Node {node!r} named an effect {key[:40]!r}…, in {len(key)} characters; a key has at most {MOST_KEY}. "
            "Take a hash of what is long"
        )
    if canonical.jsonable(key) != key:
        raise RunError(f"Node {node!r} named an effect {key!r}, which holds a NUL or half a character")
    return key


def _called(function: Callable[[], Any]) -> Any:
    result = function()
    return loop.run(result) if inspect.iscoroutine(result) else result
