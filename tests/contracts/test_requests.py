"""What a bus promises about requests and answers, on the double and on real servers alike."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import time
from collections import Counter
from collections.abc import Callable

import nats
import pytest

from openvibe.bus import ERROR_CODE_HEADER, ERROR_HEADER, MOST_BYTES, Bus, Message, ServeHandler
from openvibe.bus.nats import NatsBus
from openvibe.errors import BusError, NoResponders, RequestTimeout, ServiceError, SetupError
from tests.contracts.buses import LOCAL, QUIET, SOON, Heard, answers, eventually


def named(name: str) -> ServeHandler:
    """Answer with one's own name."""

    async def answer(message: Message) -> bytes:
        return name.encode()

    return answer


def failing(error: Callable[[], Exception]) -> ServeHandler:
    async def fail(message: Message) -> bytes:
        raise error()

    return fail


async def test_a_request_is_answered(bus: Bus, other: Bus, name: str) -> None:
    await bus.serve(name, answers)
    answer = await other.request(name, b"\x00question\n", timeout=SOON)
    assert (answer.data, answer.headers, answer.error) == (b"\x00question\n", {}, None)


async def test_a_handler_sees_subject_body_headers_and_that_an_answer_is_awaited(bus: Bus, name: str) -> None:
    heard = Heard()

    async def keep(message: Message) -> bytes:
        await heard(message)
        return b""

    await bus.serve(f"{name}.*.research", keep)
    await bus.request(f"{name}.a.research", b"q", timeout=SOON, headers={"CG-Sender": "alice"})
    assert [(each.subject, each.data, each.headers) for each in heard] == [
        (f"{name}.a.research", b"q", {"CG-Sender": "alice"})
    ]
    assert heard[0].reply


async def test_a_request_that_nobody_serves_fails_at_once(bus: Bus, name: str) -> None:
    await bus.serve(f"{name}.other", answers)
    began = time.monotonic()
    with pytest.raises(NoResponders, match=name):
        await bus.request(name, b"", timeout=60)
    assert time.monotonic() - began < SOON


async def test_a_request_that_is_not_answered_in_time_fails(bus: Bus, name: str) -> None:
    never = asyncio.Event()

    async def wait(message: Message) -> bytes:
        await never.wait()
        return b""

    await bus.serve(name, wait)
    with pytest.raises(RequestTimeout, match=name):
        await bus.request(name, b"", timeout=QUIET)


async def test_an_answer_that_comes_too_late_disturbs_nobody(bus: Bus, name: str) -> None:
    go_on = asyncio.Event()

    async def wait_once(message: Message) -> bytes:
        if message.data == b"slow":
            await go_on.wait()
        return message.data

    await bus.serve(name, wait_once)
    with pytest.raises(RequestTimeout):
        await bus.request(name, b"slow", timeout=QUIET)
    go_on.set()
    for number in range(20):
        assert (await bus.request(name, str(number).encode(), timeout=SOON)).data == str(number).encode()


async def test_a_handlers_fault_is_answered_as_an_error_and_logged(
    bus: Bus, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    await bus.serve(name, failing(lambda: ValueError("no such\r\ncompany: Müller")))
    answer = await bus.request(name, b"", timeout=SOON)
    assert answer.headers == {ERROR_HEADER: "no such company: Müller", ERROR_CODE_HEADER: "500"}
    assert answer.error is not None
    assert (answer.error.code, answer.error.description) == ("500", "no such company: Müller")
    assert "no such" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_handler_chooses_the_code_of_an_error(bus: Bus, name: str, caplog: pytest.LogCaptureFixture) -> None:
    await bus.serve(name, failing(lambda: ServiceError("404", "no such company")))
    answer = await bus.request(name, b"", timeout=SOON)
    assert answer.headers == {ERROR_HEADER: "no such company", ERROR_CODE_HEADER: "404"}
    assert str(answer.error) == "404: no such company"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_error_without_a_text_is_told_by_its_name(bus: Bus, name: str) -> None:
    await bus.serve(name, failing(KeyError))
    answer = await bus.request(name, b"", timeout=SOON)
    assert answer.headers[ERROR_HEADER] == "KeyError"


async def test_an_answer_too_large_is_an_error_and_a_question_too_large_is_refused(bus: Bus, name: str) -> None:
    async def large(message: Message) -> bytes:
        return b"x" * (MOST_BYTES + 1)

    await bus.serve(name, large)
    answer = await bus.request(name, b"", timeout=SOON)
    assert answer.error is not None
    with pytest.raises(BusError):
        await bus.request(name, b"x" * (MOST_BYTES + 1), timeout=SOON)


async def test_two_replicas_share_the_requests_of_a_queue(bus: Bus, other: Bus, name: str) -> None:
    await bus.serve(name, named("one"), queue="q")
    await other.serve(name, named("two"), queue="q")
    found = Counter([(await bus.request(name, b"", timeout=SOON)).data for _ in range(100)])
    assert set(found) == {b"one", b"two"}
    assert sum(found.values()) == 100
    assert min(found.values()) >= 10


async def test_one_replica_of_each_queue_gets_a_request(bus: Bus, name: str) -> None:
    heard: list[str] = []

    def hearing(who: str) -> ServeHandler:
        async def hear(message: Message) -> bytes:
            heard.append(who)
            return b""

        return hear

    for queue in ("a", "b"):
        for _ in range(3):
            await bus.serve(name, hearing(queue), queue=queue)
    for _ in range(2):
        await bus.serve(name, hearing("alone"))
    for _ in range(10):
        await bus.request(name, b"", timeout=SOON)
    await eventually(lambda: len(heard) >= 40)
    await asyncio.sleep(QUIET)
    assert Counter(heard) == {"a": 10, "b": 10, "alone": 20}


async def test_many_requests_are_answered_at_the_same_time_each_with_its_own(bus: Bus, other: Bus, name: str) -> None:
    under_way, all_there = [0], asyncio.Event()

    async def wait_for_all(message: Message) -> bytes:
        under_way[0] += 1
        if under_way[0] == 50:
            all_there.set()
        await all_there.wait()
        return message.data

    await bus.serve(name, wait_for_all)
    found = await asyncio.gather(*[other.request(name, str(each).encode(), timeout=SOON) for each in range(50)])
    assert [int(answer.data) for answer in found] == list(range(50))


async def test_a_handler_may_ask_others(bus: Bus, name: str) -> None:
    async def ask(message: Message) -> bytes:
        return b"asked: " + (await bus.request(f"{name}.b", message.data, timeout=SOON)).data

    await bus.serve(f"{name}.a", ask)
    await bus.serve(f"{name}.b", answers)
    assert (await bus.request(f"{name}.a", b"x", timeout=SOON)).data == b"asked: x"


async def test_whoever_stops_serving_gets_no_more_requests(bus: Bus, name: str) -> None:
    end = await bus.serve(name, named("one"), queue="q")
    await bus.serve(name, named("two"), queue="q")
    await end()
    await end()
    found = {(await bus.request(name, b"", timeout=SOON)).data for _ in range(20)}
    assert found == {b"two"}


async def test_when_the_last_server_has_stopped_nobody_responds(bus: Bus, name: str) -> None:
    await (await bus.serve(name, answers))()
    with pytest.raises(NoResponders):
        await bus.request(name, b"", timeout=SOON)


async def test_a_subscriber_may_answer_by_publishing(bus: Bus, other: Bus, name: str) -> None:
    async def answer(message: Message) -> None:
        await bus.publish(message.reply, b"by hand", headers={"X-A": "1"})

    await bus.subscribe(name, answer)
    found = await other.request(name, b"", timeout=SOON)
    assert (found.data, found.headers) == (b"by hand", {"X-A": "1"})


async def test_a_server_does_not_hear_what_is_merely_published(bus: Bus, name: str) -> None:
    heard = Heard()

    async def keep(message: Message) -> bytes:
        await heard(message)
        return b""

    await bus.serve(name, keep)
    await bus.publish(name, b"published")
    await bus.request(name, b"asked", timeout=SOON)
    assert [message.data for message in heard] == [b"asked"]


async def test_whoever_closes_its_connection_serves_no_more(other: Bus, bus: Bus, kind: str, name: str) -> None:
    await other.serve(name, answers)
    assert (await bus.request(name, b"1", timeout=SOON)).data == b"1"
    await other.close()
    # In memory there is only one connection, and who has closed it cannot ask either.
    with pytest.raises(BusError if kind in LOCAL else NoResponders):
        await bus.request(name, b"", timeout=SOON)


# Named services


async def test_a_service_answers_on_all_its_subjects_and_its_replicas_share(bus: Bus, other: Bus, name: str) -> None:
    for each, who in ((bus, "one"), (other, "two")):
        await each.serve_service(
            name,
            version="1.2.3",
            description="A test",
            endpoints={f"{name}.who": named(who), f"{name}.echo": answers, f"{name}.bad": failing(KeyError)},
        )
    assert (await bus.request(f"{name}.echo", b"x", timeout=SOON)).data == b"x"
    assert (await bus.request(f"{name}.bad", b"x", timeout=SOON)).error is not None
    found = Counter([(await bus.request(f"{name}.who", b"", timeout=SOON)).data for _ in range(100)])
    assert set(found) == {b"one", b"two"}
    assert sum(found.values()) == 100


async def test_a_service_answers_many_requests_at_the_same_time(bus: Bus, name: str) -> None:
    under_way, all_there = [0], asyncio.Event()

    async def wait_for_all(message: Message) -> bytes:
        under_way[0] += 1
        if under_way[0] == 20:
            all_there.set()
        await all_there.wait()
        return message.data

    await bus.serve_service(name, version="1.0.0", endpoints={name: wait_for_all})
    async with asyncio.timeout(SOON):
        await asyncio.gather(*[bus.request(name, b"", timeout=SOON) for _ in range(20)])


async def test_a_service_that_has_ended_answers_no_more(bus: Bus, name: str) -> None:
    end = await bus.serve_service(name, version="1.0.0", endpoints={f"{name}.a": answers, f"{name}.b": answers})
    await end()
    await end()
    for subject in (f"{name}.a", f"{name}.b"):
        with pytest.raises(NoResponders):
            await bus.request(subject, b"", timeout=SOON)


@pytest.mark.parametrize(
    ("called", "version"), [("a b", "1.0.0"), ("", "1.0.0"), ("a.b", "1.0.0"), ("a", "1"), ("a", ""), ("a", "1.0.0 ")]
)
async def test_a_service_that_nats_would_refuse_is_a_setup_error(bus: Bus, called: str, version: str) -> None:
    with pytest.raises(SetupError, match="ervice"):
        await bus.serve_service(called, version=version, endpoints={})


async def test_on_nats_a_service_can_be_discovered(nats_url: str, name: str) -> None:
    ours = NatsBus(nats_url)
    await ours.connect()
    end = await ours.serve_service(
        name,
        version="1.2.3",
        description="A test",
        endpoints={f"{name}.a": answers, f"{name}.bad": failing(lambda: ServiceError("404", "no"))},
    )
    for subject in (f"{name}.a", f"{name}.bad", f"{name}.bad"):
        await ours.request(subject, b"", timeout=SOON)
    client = await nats.connect(nats_url)
    pong = json.loads((await client.request(f"$SRV.PING.{name}", timeout=SOON)).data)
    assert (pong["name"], pong["version"]) == (name, "1.2.3")
    told = json.loads((await client.request(f"$SRV.INFO.{name}", timeout=SOON)).data)
    assert told["description"] == "A test"
    assert {endpoint["subject"] for endpoint in told["endpoints"]} == {f"{name}.a", f"{name}.bad"}
    stats = json.loads((await client.request(f"$SRV.STATS.{name}", timeout=SOON)).data)
    counted = {each["subject"]: (each["num_requests"], each["num_errors"]) for each in stats["endpoints"]}
    assert counted == {f"{name}.a": (1, 0), f"{name}.bad": (2, 2)}
    await end()
    with pytest.raises(nats.errors.NoRespondersError):
        await client.request(f"$SRV.PING.{name}", timeout=SOON)
    await client.close()
    await ours.close()


def test_errors_of_the_bus_survive_pickling() -> None:
    for error in (ServiceError("404", "no"), NoResponders("x"), RequestTimeout("x")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
