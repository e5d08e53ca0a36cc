"""Agents in accounts of their own, on a real server with TLS: what they read durably and share, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.db import connection
from nats.errors import Error as NATSError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as Silence
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError

from openvibe.protocol import readers
from operators.link import link
from operators.models import ContextEntry, Project
from operators.services import announcements, context
from tests import servers
from tests.bridge.conftest import SOON, Bridge, eventually
from tests.bridge.test_accounts import Agent, Approver, _ours, kept
from tests.servers import Server

pytestmark = pytest.mark.django_db(transaction=True)

WORK = "tenant.acme.sessions.{run}.work"
LEADS = "tenant-acme-context-leads"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with servers.closed_nats("default", "acme") as running:
        yield running


@pytest.fixture
def acme(project: Project) -> Project:
    return Project.objects.create(id="acme", name="Acme")


@pytest.fixture
def bridge(server: Server, acme: Project, settings: Any) -> Iterator[Bridge]:
    settings.NATS_URL = server.url
    keys = {"nats_credentials": str(server.folder / "openvibe-site.nk"), "nats_certificates": str(server.folder)}
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, **keys)
    bridge = Bridge(server)
    bridge.start()
    eventually(lambda: asyncio.run(_there(server)))
    yield bridge
    bridge.stop()
    announcements.settle(SOON)
    link.submit(link.close()).result(SOON)


async def _there(server: Server) -> bool:
    """Tell whether what agents need has been made, and somebody answers them."""
    try:
        for stream in readers.streams("acme"):
            await kept(server, stream.name)
        await kept(server, f"KV_{LEADS}")
        async with _ours(server) as client:
            await client.request(f"{readers.GATE}.acme.names", b"", timeout=1)
    except (NotFoundError, NoRespondersError):
        return False
    return True


@pytest.fixture
async def agent(bridge: Bridge) -> AsyncIterator[Agent]:
    async with Agent(bridge.server, "acme") as found:
        yield found


@pytest.fixture
async def site(bridge: Bridge) -> AsyncIterator[JetStreamContext]:
    """What OpenVibe itself may do."""
    async with _ours(bridge.server) as client:
        yield client.jetstream()


def stream_of(agent: Agent) -> JetStreamContext:
    """JetStream as agents see it."""
    return agent.client.jetstream(domain=readers.DOMAIN, timeout=5)


async def texts(reader: JetStreamContext.PullSubscription, many: int) -> list[str]:
    """Fetch and acknowledge."""
    found: list[str] = []
    while len(found) < many:
        for message in await reader.fetch(many - len(found), timeout=SOON):
            found.append(message.data.decode())
            await message.ack_sync(timeout=5)
    return found


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_agent_reads_what_was_handed_out_while_it_was_away_and_each_piece_once(
    bridge: Bridge, site: JetStreamContext
) -> None:
    work = "tenant.acme.sessions.*.work.coding"
    for number in range(3):
        await site.publish(f"tenant.acme.sessions.run_{number}.work.coding", str(number).encode())
    await site.publish("sessions.run_9.work.coding", b"not theirs")
    await site.publish("tenant.acme.sessions.run_1.results.coding", b"{}")
    async with Agent(bridge.server, "acme") as first:
        reader = await stream_of(first).pull_subscribe(work, durable="coder")
        assert await texts(reader, 2) == ["0", "1"]
    await site.publish("tenant.acme.sessions.run_3.work.coding", b"3")
    async with Agent(bridge.server, "acme") as second:
        reader = await stream_of(second).pull_subscribe(work, durable="coder")
        assert await texts(reader, 2) == ["2", "3"]
        with pytest.raises(Silence):
            await reader.fetch(1, timeout=0.5)
        assert second.complaints == []


async def test_agents_that_share_a_reader_share_the_work_and_what_one_leaves_comes_to_the_other(
    bridge: Bridge, site: JetStreamContext
) -> None:
    work = WORK.format(run="run_pair")
    async with Agent(bridge.server, "acme") as dying, Agent(bridge.server, "acme") as living:
        config = ConsumerConfig(ack_wait=1)
        left = await stream_of(dying).pull_subscribe(work, durable="pair", config=config)
        taken = await stream_of(living).pull_subscribe(work, durable="pair", config=config)
        await site.publish(work, b"left")
        [message] = await left.fetch(1, timeout=SOON)
        assert (message.subject, message.data) == (work, b"left")
        await dying.client.close()
        assert await texts(taken, 1) == ["left"]


async def test_a_wakeup_and_a_tools_call_are_read_durably_with_their_headers(
    agent: Agent, site: JetStreamContext
) -> None:
    calls, wakeup = "cg.v1.acme.*.cmd.tool.weather.>", "cg.v1.acme.public.cmd.agent.outsider.wakeup"
    await site.publish("cg.v1.acme.t_run_1.cmd.tool.weather.call", b"rain?", headers={"CG-Recursion-Depth": "3"})
    await site.publish("cg.v1.default.t_run_1.cmd.tool.weather.call", b"not theirs")
    stream = stream_of(agent)
    [call] = await (await stream.pull_subscribe(calls, durable="weather")).fetch(1, timeout=SOON)
    assert (call.data, (call.headers or {})["CG-Recursion-Depth"]) == (b"rain?", "3")
    await agent.client.jetstream().publish(wakeup, b'{"agent_id": "outsider"}')
    reader = await stream.pull_subscribe("cg.v1.acme.*.cmd.agent.outsider.wakeup", durable="outsider")
    assert await texts(reader, 1) == ['{"agent_id": "outsider"}']


async def test_an_approver_reads_what_was_asked_while_it_was_away(bridge: Bridge, site: JetStreamContext) -> None:
    gate = "tenant.acme.sessions.run_asked.approvals"
    await site.publish(gate, b"asked")
    async with Approver(bridge.server, "acme") as approver:
        reader = await stream_of(approver).pull_subscribe(gate, durable="lead")
        assert (await texts(reader, 1), approver.complaints) == (["asked"], [])


async def test_what_an_agent_has_delivered_where_gates_are_decided_decides_nothing(
    agent: Agent, site: JetStreamContext
) -> None:
    place, gate = "cg.v1.acme.public.cmd.agent.trickster.stop", "tenant.acme.sessions.run_trick.approvals"
    await agent.client.jetstream().publish(place, b"granted")
    await stream_of(agent).pull_subscribe(place, durable="trickster")
    delivered = await agent.client.subscribe(gate)
    await agent.client.publish(f"{readers.API}.CONSUMER.MSG.NEXT.cg_cmd_v1-acme.trickster", b"", reply=gate)
    assert (await delivered.next_msg(timeout=SOON)).data == b"granted"
    found = await site.stream_info("sessions", subjects_filter=gate)
    assert not found.state.subjects


async def test_a_program_that_names_no_reader_gets_one_that_is_forgotten_when_nobody_reads(agent: Agent) -> None:
    stream = stream_of(agent)
    reader = await stream.pull_subscribe("tenant.acme.sessions.*.work")
    info = await reader.consumer_info()
    assert (info.config.durable_name, info.config.deliver_subject) == (None, None)
    lasting = ConsumerConfig(durable_name="lasting", inactive_threshold=10**8)
    made = await stream.add_consumer("sessions-acme", lasting)
    assert made.config.inactive_threshold == readers.KEPT.total_seconds()


async def test_a_stream_that_was_lost_is_there_again_for_the_next_reader(agent: Agent, site: JetStreamContext) -> None:
    await site.publish("tenant.acme.sessions.run_l.work", b"lost and found")
    await site.delete_stream("sessions-acme")
    reader = await stream_of(agent).pull_subscribe("tenant.acme.sessions.run_l.work", durable="finder")
    assert await texts(reader, 1) == ["lost and found"]


async def test_a_project_whose_streams_cannot_be_made_closes_the_gate_to_no_other(
    bridge: Bridge, site: JetStreamContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "operators.bridge.readers")
    folder = bridge.server.folder / "jetstream/jetstream/OPENVIBE/streams/sessions-odd"
    # A file in the place of a stream's folder, which the server clears away when it stumbles over it.
    folder.write_bytes(b"")
    await in_thread(lambda: Project.objects.create(id="odd", name="Odd"))
    await in_thread(lambda: eventually(lambda: asyncio.run(_has(bridge.server, "sessions-odd"))))
    assert "sessions-odd" in caplog.text
    # Whoever begins anew has closed it meanwhile, to all.
    assert "trying again" not in caplog.text
    for stream in readers.streams("odd"):
        await site.delete_stream(stream.name)


async def _has(server: Server, stream: str) -> bool:
    try:
        await kept(server, stream)
    except NotFoundError:
        return False
    return True


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("subject", ["cg.v1.default.t_run_1.cmd.sys.reply.wait_1", "_INBOX.mine"])
async def test_no_reader_is_pushed_to_wherever_that_may_be(agent: Agent, site: JetStreamContext, subject: str) -> None:
    await site.publish(WORK.format(run="run_loud"), b"spoken as OpenVibe")
    config = ConsumerConfig(durable_name="loud", deliver_subject=subject, filter_subject=WORK.format(run="*"))
    with pytest.raises(APIError, match="deliver_subject"):
        await stream_of(agent).add_consumer("sessions-acme", config)
    with pytest.raises(NotFoundError):
        await site.consumer_info("sessions-acme", "loud")


@pytest.mark.parametrize(
    "request_",
    [b"", b"{", b"[]", b'{"config": 7}', b'{"config": {"durable_name": "another"}}',
     b'{"config": {"name": "x", "deliver_group": "g"}}', b'{"config": {"name": "x", "ack_wait": "long"}}'],
)  # fmt: skip
async def test_what_is_no_reader_is_refused_as_jetstream_refuses(agent: Agent, request_: bytes) -> None:
    place = f"{readers.API}.CONSUMER.CREATE.sessions-acme.x"
    answer = json.loads((await agent.client.request(place, request_, timeout=5)).data)
    assert answer["error"]["code"] in (400, 403)
    assert answer["error"]["description"]


async def test_a_stream_takes_a_bounded_number_of_readers(agent: Agent, site: JetStreamContext) -> None:
    stream = stream_of(agent)

    async def fill() -> None:
        for number in range(readers.MOST + 1):
            await stream.add_consumer("cg_cmd_v1-acme", ConsumerConfig(durable_name=f"many-{number}"))

    with pytest.raises(APIError, match="maximum consumers"):
        await fill()
    for number in range(readers.MOST):
        with contextlib.suppress(NotFoundError):
            await site.delete_consumer("cg_cmd_v1-acme", f"many-{number}")


@pytest.mark.parametrize(
    "subject",
    [
        *(f"{readers.API}.{act}" for act in (
            "CONSUMER.CREATE.sessions-default.spy", "CONSUMER.CREATE.sessions.spy", "CONSUMER.CREATE.sessions-acme",
            "CONSUMER.DURABLE.CREATE.cg_evt_v1.spy", "CONSUMER.INFO.sessions-default.coder",
            "CONSUMER.MSG.NEXT.sessions-default.coder", "CONSUMER.MSG.NEXT.cg_cmd_v1.openvibe-bridge",
            "CONSUMER.DELETE.sessions-acme.coder", "STREAM.INFO.sessions", "STREAM.MSG.GET.cg_evt_v1",
            "STREAM.MSG.GET.KV_context-leads", "STREAM.CREATE.mine", "STREAM.UPDATE.sessions-acme",
            "STREAM.PURGE.sessions-acme", "STREAM.DELETE.sessions-acme", f"STREAM.PURGE.KV_{LEADS}",
            f"STREAM.DELETE.KV_{LEADS}", f"STREAM.MSG.DELETE.KV_{LEADS}", "$KV.context-leads.a", "INFO",
        )),
        "readers.acme.names", "readers.default.names", "readers.default.create.sessions-default.spy",
        "$JS.API.CONSUMER.CREATE.sessions-acme.spy", "$JS.API.STREAM.PURGE.sessions-acme",
        "$JS.ACK.sessions-default.coder.1.1.1.1.0", "$KV.context-leads.a", "$KV.registry.servers/openvibe",
        "$KV.tenant-acme-registry.servers/openvibe", "tenant.acme.sessions.run_1.work",
        "cg.v1.acme.t_run_1.cmd.tool.weather.call", "cg.v1.default.public.cmd.agent.crier.wakeup",
        "operators.grocer.request.price", "tenant.default.system.health",
    ],
)  # fmt: skip
async def test_an_agent_may_neither_read_nor_do_what_is_not_its_projects(server: Server, subject: str) -> None:
    async with Agent(server, "acme") as agent:
        with pytest.raises((NATSError, TimeoutError)):
            await agent.client.request(subject, b"{}", timeout=0.5)
        assert await agent.refused(), agent.complaints


@pytest.mark.parametrize("subject", ["$KV.context-leads.>", "$KV.>", "readers.>", "tenant.acme.>", "$JS.>"])
async def test_an_agent_cannot_follow_what_is_not_its_projects(server: Server, subject: str) -> None:
    async with Agent(server, "acme") as agent:
        await agent.client.subscribe(subject)
        assert await agent.refused()


# ── shared context ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_agent_reads_and_writes_its_projects_shared_context(agent: Agent) -> None:
    await in_thread(lambda: context.put("acme", "leads", "stripe", {"score": 1}, author="alice"))
    bucket = await stream_of(agent).key_value(LEADS)
    async with asyncio.timeout(SOON):
        while (entry := await value(bucket, "stripe")) is None:
            await asyncio.sleep(0.05)
    assert (json.loads(entry.value), agent.complaints) == ({"score": 1}, [])
    revision = await bucket.update("stripe", b'{"score": 2}', last=entry.revision)
    with pytest.raises(KeyWrongLastSequenceError):
        await bucket.update("stripe", b'{"score": 3}', last=entry.revision)
    await in_thread(lambda: eventually(lambda: context.value("acme", "leads", "stripe") == {"score": 2}))
    await bucket.delete("stripe", last=revision)
    await in_thread(lambda: eventually(lambda: context.value("acme", "leads", "stripe") is None))
    assert not await in_thread(ContextEntry.objects.filter(project_id="default").exists)


async def value(bucket: Any, key: str) -> Any:
    try:
        return await bucket.get(key)
    except KeyNotFoundError:
        return None


async def in_thread(act: Any) -> Any:
    """The database refuses to be asked on an event loop's thread."""

    def call() -> Any:
        try:
            return act()
        finally:
            connection.close()

    return await asyncio.to_thread(call)


async def test_an_agent_follows_its_bucket_and_lists_its_keys(agent: Agent, site: JetStreamContext) -> None:
    changes = await agent.client.subscribe(f"$KV.{LEADS}.>")
    assert not await agent.refused(), agent.complaints
    await site.publish(f"$KV.{LEADS}.followed", b"7")
    heard = await changes.next_msg(timeout=5)
    assert (heard.subject, heard.data) == (f"$KV.{LEADS}.followed", b"7")
    info = await stream_of(agent).stream_info(f"KV_{LEADS}", subjects_filter=">")
    assert f"$KV.{LEADS}.followed" in (info.state.subjects or {})


async def test_a_put_in_the_words_of_clients_that_name_a_domain_is_the_same_put(agent: Agent) -> None:
    done = await agent.client.jetstream().publish(f"{readers.API}.$KV.{LEADS}.worded", b"1")
    assert done.stream == f"KV_{LEADS}"
    assert (await (await stream_of(agent).key_value(LEADS)).get("worded")).value == b"1"


@pytest.mark.parametrize("rollup", ["all", "sub"])
async def test_nobody_empties_a_bucket_by_what_he_puts(agent: Agent, site: JetStreamContext, rollup: str) -> None:
    await site.publish(f"$KV.{LEADS}.kept", b"1")
    before = await held(site)
    with pytest.raises(APIError, match="rollup"):
        await agent.client.jetstream().publish(f"$KV.{LEADS}.kept", b"", headers={"Nats-Rollup": rollup})
    assert await held(site) == before


async def held(site: JetStreamContext) -> int:
    return int((await site.stream_info(f"KV_{LEADS}")).state.messages)
