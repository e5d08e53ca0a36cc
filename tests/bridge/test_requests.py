"""Requests over a real nats-server: those that are answered here, and those that a run of ours makes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nats
import pytest
from django.db import connection
from django.utils import timezone

from openvibe.bus import Message, service
from openvibe.bus.nats import NatsBus
from openvibe.errors import NoResponders, ServiceError
from openvibe.protocol import requests
from operators.link import link
from operators.models import Inquiry, Operator, Project, Run, Server, Wait
from operators.services import deliveries, execution, intake, servers, waits
from tests.bridge.conftest import SOON, Bridge, eventually
from tests.bridge.village import Baker, Grocer, served

pytestmark = pytest.mark.django_db(transaction=True)

PRICE = "operators.grocer.request.price"
ADVICE = "operators.grocer.request.advice"
ANSWER_TO = "cg.v1.default.t_run_elsewhere.cmd.sys.reply.wait_1"


@pytest.fixture
def village(project: Project) -> Iterator[dict[str, Operator]]:
    yield from served(project, Grocer)


@pytest.fixture
def baker(project: Project) -> Iterator[Operator]:
    """A server without a grocer."""
    for found in served(project, Baker):
        yield found["baker"]


@pytest.fixture
def worker(bridge: Bridge) -> Iterator[None]:
    """Plays what is queued, as a worker would."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.02):
            for run_id in Run.objects.filter(status=Run.Status.QUEUED).values_list("id", flat=True):
                execution.perform(run_id)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    ended.set()
    thread.join(SOON)


def with_client(bridge: Bridge, act: Callable[[NatsBus], Any]) -> Any:
    async def main() -> Any:
        bus = NatsBus(bridge.server.url, name="stranger")
        await bus.connect()
        try:
            return await act(bus)
        finally:
            await bus.close()

    return asyncio.run(main())


def ask(bridge: Bridge, subject: str, body: object, *, timeout: float = SOON, **headers: str) -> Message:
    """Ask as a stranger does; waits for the bridge to serve."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def act(bus: NatsBus) -> Message:
        deadline = asyncio.get_running_loop().time() + SOON
        while True:
            try:
                return await bus.request(subject, data, timeout=timeout, headers=named)
            except NoResponders:
                assert asyncio.get_running_loop().time() < deadline, "nobody serves"
                await asyncio.sleep(0.05)

    return with_client(bridge, act)


def refused(answer: Message) -> ServiceError:
    assert answer.error is not None, answer.data
    return answer.error


def test_a_request_starts_a_run_and_its_output_is_the_answer(village, bridge, worker) -> None:
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    answer = ask(
        bridge, PRICE, {"loaves": 3, "noise": True}, traceparent=trace, CG_Recursion_Depth="4", CG_User_ID="eve"
    )
    told = json.loads(answer.data)
    run = Run.objects.get()
    assert told == {"run_id": run.id, "status": "completed", "result": run.output}
    assert run.output["price"] == "6 coins"
    assert (run.trigger, run.traceparent, run.depth, run.input) == ("request:price", trace, 5, {"loaves": 3})
    assert run.passed_on == {"CG-User-ID": "eve"}


def test_an_envelope_is_taken_and_a_failed_run_says_why(village, bridge, worker) -> None:
    told = json.loads(ask(bridge, PRICE, {"id": "m1", "payload": {"loaves": 2000}}).data)
    assert (told["status"], told["result"]) == ("failed", None)
    assert "too much bread" in told["error"]


def test_a_repeated_request_is_one_run_and_another_body_under_its_name_is_refused(village, bridge, worker) -> None:
    named = {"Nats_Msg_Id": "order-1"}
    first, second = (json.loads(ask(bridge, PRICE, {"loaves": 3}, **named).data) for _ in range(2))
    assert first == second
    assert Run.objects.count() == 1
    other = refused(ask(bridge, PRICE, {"loaves": 4}, **named))
    assert (other.code, other.description.split(":")[0]) == ("422", "key_reused")


@pytest.mark.parametrize(
    ("subject", "body", "headers", "code", "told"),
    [
        ("operators.grocer.request.shoes", {}, {}, "404", "no capability 'shoes'; it has: advice, price"),
        (PRICE, {"loaves": "many"}, {}, "422", "loaves"),
        (PRICE, b"{", {}, "400", "no JSON"),
        (PRICE, {"version": "7", "payload": {"loaves": 1}}, {}, "400", "malformed: version: '7'"),
        (PRICE, {"loaves": 1}, {"CG_Recursion_Depth": "19"}, "409", "recursion_depth_exceeded"),
        (PRICE, {"loaves": 1}, {"CG_Recursion_Depth": "20"}, "409", "recursion_depth_exceeded"),
        (PRICE, {"loaves": 1}, {"CG_Recursion_Depth": "-1"}, "400", "protocol_violation"),
        (PRICE, {"loaves": 1}, {"OpenVibe_Answer_To": "operators.baker.events.x"}, "422", "OpenVibe-Answer-To"),
        *(
            (PRICE, {"loaves": 1}, {"OpenVibe_Answer_To": f"cg.v1.default.{place}"}, "422", "OpenVibe-Answer-To")
            for place in (
                "t_1 x.cmd.sys.reply.w",
                "t_1.cmd.sys.reply.w w",
                "*.cmd.sys.reply.w",
                ".cmd.sys.reply.w",
                "t_1.cmd.sys.reply.>",
                "t_1.cmd.sys.reply.",
            )
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_reason(
    village, bridge, subject: str, body: Any, headers: dict[str, str], code: str, told: str
) -> None:
    error = refused(ask(bridge, subject, body, **headers))
    assert error.code == code
    assert told in error.description
    assert Run.objects.count() == 0


def test_a_run_that_takes_longer_than_the_caller_waits_is_named(village, bridge, worker) -> None:
    error = refused(ask(bridge, ADVICE, {"loaves": 3}, OpenVibe_Timeout="0.3"))
    assert error.code == "504"
    assert Run.objects.get().id in error.description


def test_services_are_discovered_with_their_capabilities(village, bridge) -> None:
    async def act(bus: NatsBus) -> Any:
        return json.loads((await bus.request("$SRV.INFO.openvibe-grocer", b"", timeout=SOON)).data)

    ask(bridge, "operators.grocer.request.shoes", {})
    info = with_client(bridge, act)
    assert {PRICE, ADVICE} < {endpoint["subject"] for endpoint in info["endpoints"]}


@pytest.fixture
def development(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVibe, as it is installed from a commit between two releases."""
    folder = tmp_path / "openvibe-0.1.0.dev3+g12ab.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: openvibe\nVersion: 0.1.0.dev3+g12ab\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_version_that_is_no_semantic_one_serves_too(village, development, bridge, worker) -> None:
    assert servers.version() == "0.1.0.dev3+g12ab"
    assert json.loads(ask(bridge, PRICE, {"loaves": 3}).data)["status"] == "completed"
    info = json.loads(ask(bridge, "$SRV.INFO.openvibe-grocer", {}).data)
    assert info["version"] == "0.1.0-dev3+g12ab"


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("1.2.3", "1.2.3"),
        ("1.2", "1.2.0"),
        ("2026.01.07", "2026.1.7"),
        ("1.2.3rc1", "1.2.3-rc1"),
        ("1.2.3a1.dev4+local.1", "1.2.3-a1.dev4+local.1"),
        ("1.2.3.post1", "1.2.3+post1"),
        ("1.2.3.4.post1.dev2+g12_x", "1.2.3+4.post1.dev2.g12.x"),
        ("1!2.0", "2.0.0"),
        ("unknown", "0.0.0+unknown"),
        ("", "0.0.0"),
    ],
)
def test_every_version_has_a_semantic_one(version: str, told: str) -> None:
    assert servers.semantic(version) == told
    service.check("x", told)


def test_an_answer_that_was_to_be_kept_is_kept_when_the_run_ends(village, bridge, worker) -> None:
    accepted = json.loads(ask(bridge, ADVICE, {"loaves": 3}, OpenVibe_Answer_To=ANSWER_TO, CG_Context_ID="x").data)
    assert accepted["status"] in Run.ACTIVE
    eventually(lambda: Wait.objects.gates().pending().exists())
    waits.answer(Wait.objects.select_related("run").get(), waits.Answer("approve"), actor=None, decider="bob")
    eventually(lambda: Inquiry.objects.get().answered_at)

    async def act(bus: NatsBus) -> Any:
        pull = await bus.pull("cg_cmd_v1", durable="test", patterns=[requests.ANSWERS])
        return await pull.fetch(5, timeout=SOON)

    [kept] = with_client(bridge, act)
    assert (kept.subject, kept.headers["CG-Context-ID"]) == (ANSWER_TO, "x")
    told = json.loads(kept.data)["payload"]
    assert (told["run_id"], told["status"], told["result"]["loaves"]) == (accepted["run_id"], "completed", 3)


def test_an_answer_that_cannot_be_kept_holds_up_no_other_and_ends_no_service(village, bridge, worker) -> None:
    first = json.loads(ask(bridge, PRICE, {"loaves": 1}).data)
    # As it was once taken in; it is the oldest, and looked at first.
    Inquiry.objects.create(
        run_id=first["run_id"], answer_to="cg.v1.default.t_1 x.cmd.sys.reply.w", asked_at=timezone.now()
    )
    ask(bridge, PRICE, {"loaves": 3}, OpenVibe_Answer_To=ANSWER_TO)
    eventually(lambda: Inquiry.objects.get(answer_to=ANSWER_TO).answered_at)


def asking(baker: Operator) -> Wait:
    """A run that stands at its request, which no operator of ours answers."""
    eventually(lambda: link.connected)
    run = intake.request(
        baker.workflows.get(slug="ask"), input={"loaves": 3}, actor=None, passed_on={"CG-User-ID": "eve"}
    )
    execution.perform(run.id)
    return Wait.objects.select_related("run").get()


def asked(wait: Wait) -> None:
    """Tell a worker to ask. It may be asking already."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_ask, wait.id).result(SOON)


def _ask(wait_id: str) -> None:
    try:
        deliveries.ask(wait_id)
    finally:
        connection.close()


def settled(wait: Wait) -> Wait:
    eventually(lambda: not Wait.objects.get(id=wait.id).pending)
    return Wait.objects.get(id=wait.id)


@pytest.fixture
def stranger(bridge: Bridge) -> Iterator[Callable[[Callable[[Any, Any], Any]], None]]:
    """Serves the price, with plain nats-py, from a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    clients: list[Any] = []

    def serve(handler: Callable[[Any, Any], Any]) -> None:
        async def begin() -> None:
            client = await nats.connect(bridge.server.url)
            clients.append(client)

            async def answer(message: Any) -> None:
                await handler(client, message)

            await client.subscribe(PRICE, cb=answer)
            await client.flush()

        asyncio.run_coroutine_threadsafe(begin(), loop).result(SOON)

    yield serve
    for client in clients:
        asyncio.run_coroutine_threadsafe(client.close(), loop).result(SOON)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(SOON)
    loop.close()


def test_an_operator_elsewhere_is_asked_and_answers_at_once(baker, bridge, stranger) -> None:
    seen: list[Any] = []

    async def handle(client: Any, message: Any) -> None:
        seen.append((json.loads(message.data)["payload"], message.headers))
        await message.respond(b'{"price": "seven"}')

    stranger(handle)
    wait = asking(baker)
    asked(wait)
    assert settled(wait).result == {"price": "seven"}
    payload, headers = seen[0]
    assert payload == {"loaves": 3}
    assert headers["traceparent"] == wait.run.traceparent
    assert (headers["CG-Recursion-Depth"], headers["CG-User-ID"]) == ("0", "eve")
    assert headers[requests.ANSWER_TO] == f"cg.v1.default.t_{wait.run_id}.cmd.sys.reply.{wait.id}"


def test_an_answer_that_comes_later_and_twice_is_taken_from_its_stream_once(baker, bridge, stranger) -> None:
    async def handle(client: Any, message: Any) -> None:
        await message.respond(b'{"run_id": "run_far", "status": "queued", "result": null}')
        begun = {"id": "a0", "payload": {"run_id": "run_far", "status": "running"}}
        body = {"id": "a1", "payload": {"run_id": "run_far", "status": "completed", "result": {"price": "eight"}}}
        for told in (begun, body, body):
            await client.jetstream().publish(message.headers[requests.ANSWER_TO], json.dumps(told).encode())

    stranger(handle)
    wait = asking(baker)
    asked(wait)
    # That it has begun is no answer, and stands in the way of none.
    assert settled(wait).result == {"price": "eight"}
    asked(wait)
    assert Wait.objects.get().decider == "grocer.price"


def test_a_refusal_elsewhere_is_the_askers_error(baker, bridge, stranger) -> None:
    async def handle(client: Any, message: Any) -> None:
        headers = {"Nats-Service-Error": "no bread today", "Nats-Service-Error-Code": "409"}
        await client.publish(message.reply, b"", headers=headers)

    stranger(handle)
    wait = asking(baker)
    asked(wait)
    assert settled(wait).error == "409: no bread today"


def test_an_answer_that_nobody_can_keep_is_an_error(baker, bridge, stranger) -> None:
    async def handle(client: Any, message: Any) -> None:
        await message.respond(b'{"price": ' + b"[" * 300 + b"]" * 300 + b"}")

    stranger(handle)
    wait = asking(baker)
    asked(wait)
    assert settled(wait).error == "the answer has more than 100 levels of lists and objects"


def test_an_error_with_a_nul_is_an_error_without(baker, bridge, stranger) -> None:
    async def handle(client: Any, message: Any) -> None:
        await message.respond(b'{"error": "no\\u0000bread"}')

    stranger(handle)
    wait = asking(baker)
    asked(wait)
    assert settled(wait).error == "no\N{REPLACEMENT CHARACTER}bread"


def test_a_server_of_ours_that_falls_silent_is_asked_again(baker, bridge, stranger) -> None:
    names: list[str] = []

    async def handle(client: Any, message: Any) -> None:
        names.append(message.headers["Nats-Msg-Id"])
        if len(names) > 1:
            await message.respond(b'{"run_id": "run_far", "status": "completed", "result": {"price": "nine"}}')

    stranger(handle)
    now = timezone.now()
    offers = {"grocer": ["price"]}
    told = {"operators": ["grocer"], "capabilities": offers, "beat_at": now, "heard_at": now}
    Server.objects.create(project_id="default", name="far", **told)
    wait = asking(baker)
    asked(wait)
    assert settled(wait).result == {"price": "nine"}
    assert len(names) == 2
    assert len(set(names)) == 1


def test_what_nobody_offers_anywhere_is_an_error_at_once(baker, bridge) -> None:
    wait = asking(baker)
    asked(wait)
    assert settled(wait).error == "nobody offers 'price' of 'grocer', here or on another server"
