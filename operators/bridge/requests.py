"""Requests from elsewhere: each becomes one run, whose end is the answer.

An operator's capabilities are one service of the bus, which NATS clients discover by `$SRV`; each project is asked on
subjects of its own. Whoever names a durable
subject for the answer is told at once that the run is there, and finds the answer on that subject when the run ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import defaultdict
from functools import partial
from typing import Any, NamedTuple

from django.db import transaction
from django.utils import timezone

from openvibe.bus import Bus, Message, Unsubscribe
from openvibe.errors import BusError, ServiceError
from openvibe.protocol import envelope, headers, requests, subjects, tenancy
from openvibe.protocol.envelope import Malformed, TooDeep
from operators.bridge import companions
from operators.errors import DomainError, Misfit, RecursionTooDeep, Unknown
from operators.link import link
from operators.models import Inquiry, Run, Workflow
from operators.services import cards, intake, servers
from operators.threads import aside

logger = logging.getLogger(__name__)

#: Seconds between two looks for operators that came or went, and for runs whose end nobody told.
REFRESH_SECONDS = 2.0
LOOK_SECONDS = 1.0
RETRY_SECONDS = 0.5
#: How many answers one look stores.
MOST = 100
#: As wide as the column of `Run.key`, less what stands before the name.
LONGEST_KEY = 180
ENDS = frozenset({"run.completed", "run.failed", "run.cancelled"})
ENDS_SPELLED = tuple(kind.encode() for kind in sorted(ENDS))


class Asked(NamedTuple):
    """Who is asked: an operator of a project."""

    project: str
    operator: str

    @property
    def service(self) -> str:
        """What its service is called."""
        return "-".join(("openvibe", *map(subjects.token, self if self.project != tenancy.DEFAULT else self[1:])))


class Offer(NamedTuple):
    """What an operator is asked for here: its capabilities, or `everything`, where no other server offers more."""

    capabilities: list[str]
    everything: bool


class Endings:
    """Wakes those who wait for the end of a run: by the announcements of all ends, or by a look into the database."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._waiting: dict[str, list[asyncio.Event]] = defaultdict(list)

    async def wait_for(self, run_id: str, seconds: float) -> None:
        """Return when the run has ended, or after so many seconds."""
        ended = asyncio.Event()
        self._waiting[run_id].append(ended)
        try:
            async with asyncio.timeout(seconds):
                # It may have ended before anybody listened.
                if not await aside(_ended, [run_id]):
                    await ended.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting[run_id].remove(ended)
            if not self._waiting[run_id]:
                del self._waiting[run_id]

    async def heard(self, message: Message) -> None:
        """Take in an announcement of a general channel. Most tell of no end, and need not be parsed."""
        if not any(kind in message.data for kind in ENDS_SPELLED):
            return
        events = envelope.loads(message.data)["payload"]["events"]
        self._wake([event["run_id"] for event in events if event["type"] in ENDS])

    async def look(self) -> None:
        """Find ends that no announcement told of."""
        if self._waiting:
            self._wake(await aside(_ended, list(self._waiting)))

    def _wake(self, run_ids: list[str]) -> None:
        if run_ids:
            self.news.set()
        for run_id in run_ids:
            for ended in self._waiting.get(run_id, ()):
                ended.set()


async def serve_for_ever() -> None:
    """Serve, and begin anew whenever that broke off."""
    while True:
        try:
            await _serve(await link.bus())
        except BusError as error:
            logger.info("Requests: %s; trying again", error)
        except Exception:
            logger.exception("Requests could not be served")
        await asyncio.sleep(RETRY_SECONDS)


async def _serve(bus: Bus) -> None:
    endings = Endings()
    deaf = await bus.subscribe(subjects.recorded_everywhere(subjects.PUBLIC), endings.heard)
    try:
        await companions.beside(_offer(bus, endings), _report(bus, endings))
    finally:
        await deaf()


async def _offer(bus: Bus, endings: Endings) -> None:
    """Serve what this server's operators offer, also when that changes."""
    serving: dict[Asked, tuple[Offer, Unsubscribe]] = {}
    try:
        while await link.bus() is bus:
            offered = await aside(_offered)
            for asked in [name for name, (found, _) in serving.items() if offered.get(name) != found]:
                await serving.pop(asked)[1]()
            for asked in offered.keys() - serving.keys():
                serving[asked] = offered[asked], await _service(bus, endings, asked, offered[asked])
            await asyncio.sleep(REFRESH_SECONDS)
    finally:
        await asyncio.gather(*[end() for _, end in serving.values()], return_exceptions=True)
    raise BusError("The connection has been replaced")


def _offered() -> dict[Asked, Offer]:
    found = {
        Asked(project, operator): capabilities
        for project, operators in servers.capabilities().items()
        for operator, capabilities in operators.items()
    }
    return {
        asked: Offer(capabilities, everything=not servers.surpassed(*asked, capabilities))
        for asked, capabilities in found.items()
        if capabilities
    }


async def _service(bus: Bus, endings: Endings, asked: Asked, offer: Offer) -> Unsubscribe:
    places = [requests.subject(*asked, name) for name in offer.capabilities]
    if offer.everything:
        # Answers what nobody offers. Servers share one queue: it would also be asked for what another one offers alone.
        places.append(requests.every(*asked))
    return await bus.serve_service(
        asked.service,
        version=servers.semantic(servers.version()),
        description=f"The operator {asked.operator}: {', '.join(offer.capabilities)}",
        endpoints=dict.fromkeys(places, partial(_answered, endings, asked)),
    )


async def _answered(endings: Endings, asked: Asked, message: Message) -> bytes:
    """Return the answer to a request. Raises `ServiceError` with the code that says what is wrong."""
    try:
        run_id = await aside(_started, asked, message)
    except Malformed as error:
        code = str(RecursionTooDeep.status) if isinstance(error, TooDeep) else "400"
        raise ServiceError(code, f"{error.code or 'malformed'}: {error}") from error
    except DomainError as error:
        raise ServiceError(str(error.status), f"{error.code}: {error}") from error
    durable = requests.ANSWER_TO in message.headers
    patience = requests.seconds(message.headers, default=0.0 if durable else requests.DEFAULT_SECONDS)
    if patience:
        await endings.wait_for(run_id, patience)
    found = await aside(_result, run_id)
    if found["status"] in Run.ACTIVE and not durable:
        raise ServiceError("504", f"still_running: run {run_id} is {found['status']} after {patience:g} s")
    return envelope.dumps(found)


@transaction.atomic
def _started(asked: Asked, message: Message) -> str:
    """Start the run that answers, once however often the request comes, and return its id."""
    answer_to = message.headers.get(requests.ANSWER_TO, "")
    if answer_to and not (requests.answerable(answer_to, asked.project) and len(answer_to) <= Inquiry.LONGEST):
        own = requests.ANSWERS.replace("*", subjects.token(asked.project), 1)
        raise Misfit(f"{requests.ANSWER_TO} is {answer_to!r:.200}; a subject like {own} is needed")
    workflow = _workflow(asked, message.subject)
    body = envelope.received(message.data) if message.data else {}
    envelope.check(body)
    given = body["payload"] if isinstance(body.get("payload"), dict) else body
    # Whoever does not say how deep it stands stands nowhere.
    depth = headers.required_depth(message.headers) + 1 if headers.DEPTH in message.headers else 0
    run = intake.request(
        workflow,
        input={name: value for name, value in given.items() if name in workflow.spec["inputs"]},
        actor=None,
        trigger=f"request:{message.subject.rsplit('.', 1)[1]}",
        traceparent=headers.traceparent(message.headers),
        passed_on=headers.passed_on(message.headers),
        key=_key(message),
        body=given,
        depth=depth,
    )
    if answer_to:
        now = timezone.now()
        Inquiry.objects.update_or_create(
            run=run, answer_to=answer_to, defaults={"answered_at": None}, create_defaults={"asked_at": now}
        )
    return run.id


def _workflow(asked: Asked, subject: str) -> Workflow:
    """Return the workflow that answers, as the database knows it: servers that share it may differ in their code."""
    project, operator = asked
    rows = Workflow.objects.select_related("operator").filter(retired=False)
    known: dict[str, Workflow] = {}
    for workflow in rows.filter(operator__project_id=project, operator__slug=operator, operator__retired=False):
        for capability in workflow.capabilities:
            known.setdefault(capability, workflow)
    for capability, workflow in known.items():
        if requests.subject(project, operator, capability) == subject:
            return workflow
    wanted = tenancy.inward(subject)[1].split(".", 3)[3]
    raise Unknown(f"{operator!r} has no capability {wanted!r}; it has: {', '.join(sorted(known)) or 'none'}")


def _key(message: Message) -> str:
    name = f"{message.subject}:{message.headers.get('Nats-Msg-Id') or message.reply}"
    return "request:" + (name if len(name) <= LONGEST_KEY else hashlib.sha256(name.encode()).hexdigest())


def _ended(run_ids: list[str]) -> list[str]:
    return list(Run.objects.ended().filter(id__in=run_ids).values_list("id", flat=True))


def _result(run_id: str) -> dict[str, Any]:
    run = Run.objects.get(id=run_id)
    found = {"run_id": run.id, "status": str(run.status), "result": run.output if run.status == "completed" else None}
    if run.status in Run.ENDED and run.status != Run.Status.COMPLETED:
        found["error"] = (run.error or {}).get("message", "without a reason")
    return cards.carried(run.project_id, found)


async def _report(bus: Bus, endings: Endings) -> None:
    """Store the answers to those who named a place for them, and wake those who wait."""
    while True:
        endings.news.clear()
        if bus.connected:
            for inquiry in await aside(_unanswered):
                try:
                    await _store(bus, inquiry)
                except BusError as error:
                    if not bus.connected:
                        raise
                    # One that is not kept holds up no other, and ends no service.
                    logger.info("The answer of run %s is not kept yet: %s", inquiry.run_id, error)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await endings.news.wait()
        except TimeoutError:
            await endings.look()


def _unanswered() -> list[Inquiry]:
    rows = Inquiry.objects.filter(answered_at=None, run__status__in=Run.ENDED).select_related("run")
    return list(rows.order_by("asked_at")[:MOST])


async def _store(bus: Bus, inquiry: Inquiry) -> None:
    run = inquiry.run
    name = f"reply:{run.id}:{inquiry.answer_to}"
    stamps = headers.stamped(
        "reply",
        message_id=envelope.message_id(inquiry.answer_to, name),
        traceparent=run.traceparent,
        depth=run.depth,
        passed_on=run.passed_on,
    )
    body = {
        "version": envelope.VERSION,
        "id": hashlib.sha256(name.encode()).hexdigest()[:32],
        "timestamp": timezone.now(),
        "type": "reply",
        "payload": await aside(_result, run.id),
    }
    await bus.store(inquiry.answer_to, envelope.dumps(body), headers=stamps)
    await aside(_close, inquiry)


def _close(inquiry: Inquiry) -> None:
    Inquiry.objects.filter(pk=inquiry.pk).update(answered_at=timezone.now())
