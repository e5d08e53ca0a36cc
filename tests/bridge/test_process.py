"""The real bridge on a real nats-server: what agents send arrives, whatever happens to either of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import shutil
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import nats
import pytest
from nats.js.api import StreamConfig

from openvibe.bus import MOST_BYTES
from openvibe.bus.nats import NatsBus
from openvibe.protocol import envelope, headers, subjects
from operators.link import link
from operators.models import Channel, DeadLetter, Event, Run
from operators.services import announcements
from tests import servers
from tests.bridge.conftest import SOON, Bridge, eventually, letters, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("project")]

PUBLIC = "cg.v1.default.public.evt.agent.scout.message"


def hello(number: int = 1, subject: str = PUBLIC) -> tuple[str, object]:
    return (subject, {"id": f"m{number}", "content": f"hello {number}"})


def test_a_message_becomes_one_public_event_however_often_it_comes(bridge: Bridge) -> None:
    stamps = headers.stamped("step", message_id=envelope.message_id(PUBLIC, "m1"))
    bridge.send((*hello(1), stamps), (*hello(1), stamps), hello(1), hello(2))
    eventually(lambda: said() == ["hello 1", "hello 2"])
    bridge.send(hello(1), hello(3))
    eventually(lambda: "hello 3" in said())
    assert said() == ["hello 1", "hello 2", "hello 3"]


def test_a_message_to_a_run_lands_in_its_thread_with_the_next_number(bridge: Bridge, run: Run) -> None:
    bridge.send(hello(1, f"cg.v1.default.t_{run.id}.evt.agent.scout.message"))
    eventually(lambda: said(f"t_{run.id}") == ["hello 1"])
    assert Event.objects.get(channel=f"t_{run.id}").seq == 4


def test_every_dialect_of_the_bridge_arrives(bridge: Bridge) -> None:
    bridge.send(
        ("operators.scout.events.company.found", {"id": "m1", "content": "an operator's event"}),
        ("workflow.general.status", {"id": "m2", "text": "a general message"}),
        ("cg.v1.default.public.evt.user.bob.said", {"id": "m3", "content": "a user's words"}),
        ("cg.v1.default.public.evt.tool.search.result", {"id": "m4", "content": "a tool's result"}),
    )
    eventually(lambda: len(said()) == 4)
    assert sorted(said()) == ["a general message", "a tool's result", "a user's words", "an operator's event"]


def test_what_cannot_be_read_or_kept_is_buried_and_the_next_message_still_arrives(bridge: Bridge, run: Run) -> None:
    nest = b'{"id": "deep", "content": "x", "payload": %b{}%b}' % (b'{"in":' * 400, b"}" * 400)
    bad = [
        (PUBLIC, b"{not json"),
        (PUBLIC, b'{"content": "no id"}'),
        (PUBLIC, b'{"id": "m", "content": "\\u0000"}'),
        (PUBLIC, b'{"id": "m", "content": "\xff"}'),
        (PUBLIC, nest),
        ("workflow.general.message", b'{"id": "no content"}'),
        ("cg.v1.default.t_run_99.evt.agent.scout.message", b'{"id": "m", "content": "to nobody"}'),
        ("cg.v1.nowhere.public.evt.agent.scout.message", b'{"id": "m", "content": "from nowhere"}'),
        ("operators.scout.events.x", b"x" * (MOST_BYTES - 1024)),
    ]
    for number, item in enumerate(bad):
        bridge.send(hello(2 * number), item, hello(2 * number + 1, item[0].replace("t_run_99", f"t_{run.id}")))
    expected = 2 * len(bad) - 1  # what is sent to nowhere is not kept, however good
    eventually(lambda: Event.objects.filter(kind__startswith="agent.").count() == expected)
    eventually(lambda: len(letters()) == len(bad) + 1)
    assert {item[:2] for item in letters()} >= set(bad)
    assert all(reason for _, _, reason in letters())


def test_a_subject_that_is_no_text_stops_nobody(bridge: Bridge) -> None:
    async def send() -> None:
        host, _, port = bridge.server.url.removeprefix("nats://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        stamps = b"NATS/1.0\r\nCG-Recursion-Depth: 0\r\n\r\n"
        sizes = b"%d %d" % (len(stamps), len(stamps) + 2)
        frames = b'CONNECT {"verbose":false,"headers":true}\r\nHPUB operators.\xff.events.x ' + sizes
        frames += b"\r\n" + stamps + b"{}\r\nPING\r\n"
        writer.write(frames)
        async with asyncio.timeout(SOON):
            while not (await reader.readline()).startswith(b"PONG"):
                pass
        writer.close()
        await writer.wait_closed()

    bridge.send(hello(1))
    asyncio.run(send())
    bridge.send(hello(2), ("operators.scout.events.x", {"id": "m3", "content": "hello 3"}))
    eventually(lambda: len(said()) == 4)
    assert {"hello 1", "hello 2", "hello 3"} < set(said())


def test_our_own_announcements_go_out_and_do_not_come_back(bridge: Bridge) -> None:
    async def kept() -> list[bytes]:
        bus = NatsBus(bridge.server.url)
        await bus.connect()
        pull = await bus.pull("cg_evt_v1", durable="test", patterns=[subjects.recorded("default", "public")])
        found = await pull.fetch(10, timeout=SOON)
        await bus.close()
        return [message.data for message in found]

    bridge.send(hello(1))
    eventually(lambda: Channel.objects.filter(name="public", announced_seq=1))
    (announced,) = asyncio.run(kept())
    (event,) = json.loads(announced)["payload"]["events"]
    assert (event["seq"], event["data"]["content"]) == (1, "hello 1")
    bridge.send(hello(2))
    eventually(lambda: said() == ["hello 1", "hello 2"])
    assert (Event.objects.count(), DeadLetter.objects.count()) == (2, 0)


def test_after_an_outage_it_reads_on_where_it_was(bridge: Bridge) -> None:
    bridge.send(hello(1))
    eventually(lambda: said() == ["hello 1"])
    bridge.server.stop()
    bridge.server.start()
    bridge.send(hello(2))
    eventually(lambda: said() == ["hello 1", "hello 2"])


def test_a_server_that_lost_everything_is_furnished_again(bridge: Bridge) -> None:
    bridge.send(hello(1))
    eventually(lambda: said() == ["hello 1"])
    bridge.server.kill()
    shutil.rmtree(bridge.server.folder / "jetstream")
    bridge.server.start()
    bridge.send(hello(2))
    eventually(lambda: said() == ["hello 1", "hello 2"])


def test_what_was_sent_while_no_bridge_ran_arrives_when_one_does(bridge: Bridge) -> None:
    bridge.send(hello(1))
    eventually(lambda: said() == ["hello 1"])
    bridge.stop()
    bridge.send(hello(2), hello(3))
    bridge.start()
    eventually(lambda: said() == ["hello 1", "hello 2", "hello 3"])


def test_a_thousand_messages_arrive_in_order(bridge: Bridge) -> None:
    bridge.send(*[hello(number) for number in range(1000)])
    eventually(lambda: len(said()) == 1000)
    assert said() == [f"hello {number}" for number in range(1000)]
    assert list(Event.objects.order_by("seq").values_list("seq", flat=True)) == list(range(1, 1001))


def test_an_observer_with_a_reader_of_its_own_costs_the_bridge_no_message(bridge: Bridge) -> None:
    bridge.send(*[hello(number) for number in range(20)])

    async def observe() -> list[bytes]:
        bus = NatsBus(bridge.server.url, name="observer")
        await bus.connect()
        pull = await bus.pull("cg_evt_v1", durable="observer", patterns=[PUBLIC])
        seen: list[bytes] = []
        async with asyncio.timeout(SOON):
            while len(seen) < 20:
                for message in await pull.fetch(100, timeout=1):
                    assert message.acknowledge
                    await message.acknowledge()
                    seen.append(message.data)
        await bus.close()
        return seen

    seen = asyncio.run(observe())
    eventually(lambda: len(said()) == 20)
    assert [json.loads(data)["content"] for data in seen] == said() == [f"hello {number}" for number in range(20)]


def test_a_server_that_starts_takes_no_subject_from_a_stream_that_another_one_keeps_in_it(bridge: Bridge) -> None:
    async def changed(act: str) -> StreamConfig:
        client = await nats.connect(bridge.server.url)
        config = (await client.jetstream().stream_info("agent-comms")).config
        if act == "differ":
            # More here, less there; and something by which one sees that the streams have been looked at.
            config.subjects = ["workflow.>", "argo.workflow.>", "tenant.*.workflow.a.>"]
            config.max_age = 3600.0
            await client.jetstream().update_stream(config)
        await client.close()
        return config

    bridge.send()
    bridge.stop()
    asyncio.run(changed("differ"))

    bridge.start()

    eventually(lambda: asyncio.run(changed("nothing")).max_age != 3600.0)
    assert sorted(asyncio.run(changed("nothing")).subjects) == ["argo.workflow.>", "tenant.*.workflow.>", "workflow.>"]


def test_nats_is_furnished_also_after_a_fault_that_nobody_expected(
    transactional_db: None, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with servers.nats() as server, _babbler() as babbler:
        # What is there already its readers leave as it is.
        asyncio.run(_age(server.url, made=60))
        settings.NATS_URL = babbler
        bridge = Bridge(server)
        bridge.start()
        try:
            eventually(lambda: any("furnish" in str(record.exc_text) for record in caplog.records))
            settings.NATS_URL = server.url
            eventually(lambda: asyncio.run(_age(server.url)) > 60)
        finally:
            bridge.stop()
            announcements.settle(SOON)
            link.submit(link.close()).result(SOON)


@contextlib.contextmanager
def _babbler() -> Iterator[str]:
    """The address of a server that says of itself what no client expects."""

    class Babble(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"INFO []\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Babble) as babbler:
        threading.Thread(target=babbler.serve_forever, daemon=True).start()
        yield f"nats://127.0.0.1:{babbler.server_address[1]}"
        babbler.shutdown()


async def _age(url: str, *, made: float | None = None) -> float:
    """Return for how long the events are kept, after making it so if asked to."""
    client = await nats.connect(url)
    stream = client.jetstream()
    if made:
        await stream.add_stream(name="cg_evt_v1", subjects=["cg.v1.*.*.evt.>"], max_age=made)
    found = await stream.stream_info("cg_evt_v1")
    await client.close()
    return float(found.config.max_age or 0)


@pytest.fixture
def pulling(settings: Any) -> None:
    """A bridge that pulls as its settings say, not as it does without them."""
    told = {"pull_batch": 7, "pull_inflight": 33, "pull_seconds": 2.5}
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, **told)


def test_the_settings_of_pulling_are_those_of_the_reader(pulling: None, bridge: Bridge) -> None:
    asked: list[dict[str, Any]] = []

    async def listen() -> None:
        client = await nats.connect(bridge.server.url)
        heard = await client.subscribe("$JS.API.CONSUMER.MSG.NEXT.cg_evt_v1.openvibe-bridge")
        asked.append(json.loads((await heard.next_msg(timeout=SOON)).data))
        found = await client.jetstream().consumer_info("cg_evt_v1", "openvibe-bridge")
        assert found.config.max_ack_pending == 33
        await client.close()

    asyncio.run(listen())
    assert asked[0]["batch"] == 7
    assert 0 < asked[0]["expires"] <= 2.5e9
