"""A NATS server with TLS and accounts: who gets in, what agents may say and hear, and what they may not."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nats
import pytest
from django.core.management import CommandError, call_command
from nats.errors import Error as NATSError
from nats.errors import NoRespondersError
from nats.js.errors import APIError, NoStreamResponseError

from openvibe.bus import matches, nkeys
from openvibe.bus.nats import NatsBus
from openvibe.bus.nats_access import Access, NatsClient
from openvibe.errors import BusError
from openvibe.protocol import accounts, readers, subjects, tenancy
from openvibe.protocol.streams import CONSUMERS, STREAMS, Stream, streams
from operators.bridge import certificates
from operators.management.commands import credentials
from operators.models import Project
from tests import servers
from tests.servers import Server

ACME, OTHER = "acme", "default"
THREAD = subjects.recorded(OTHER, "t_run_01")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with servers.closed_nats(OTHER, ACME) as running:
        asyncio.run(furnished(running))
        yield running


async def furnished(server: Server, needed: Sequence[Stream] = STREAMS) -> None:
    bus = openvibe(server)
    await bus.connect()
    await bus.ensure(needed)
    await bus.close()


def openvibe(server: Server) -> NatsBus:
    return NatsBus(server.url, credentials=str(server.folder / "openvibe-site.nk"), certificates=str(server.folder))


class Agent:
    """A plain client with the credentials of a project's agents, which keeps what the server complains of."""

    account = staticmethod(accounts.account)

    def __init__(self, server: Server, project: str) -> None:
        key = server.folder / credentials.key_file(self.account(project))
        self.access = Access(server.url, str(key), str(server.folder))
        self.client = NatsClient()
        self.complaints: list[str] = []

    async def __aenter__(self) -> Agent:
        await self.client.connect(**self.access.options(), error_cb=self._complain, allow_reconnect=False)
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.client.close()

    async def _complain(self, error: Exception) -> None:
        self.complaints.append(str(error))

    async def refused(self) -> bool:
        """Tell whether the server has refused what was done, once it has answered all of it."""
        await self.client.flush()
        await self.client.flush()
        return any("ermissions" in complaint for complaint in self.complaints)


class Approver(Agent):
    """The same with the credentials of a project's approvers."""

    account = staticmethod(accounts.approvers)


def message(text: str = "hello") -> bytes:
    return json.dumps({"id": text, "content": text}).encode()


async def kept(server: Server, stream: str) -> int:
    async with _ours(server) as client:
        return int((await client.jetstream().stream_info(stream)).state.messages)


class _ours:
    def __init__(self, server: Server) -> None:
        self.options = Access(server.url, str(server.folder / "openvibe-site.nk"), str(server.folder)).options()
        self.client = NatsClient()

    async def __aenter__(self) -> NatsClient:
        await self.client.connect(**self.options, allow_reconnect=False)
        return self.client

    async def __aexit__(self, *_: Any) -> None:
        await self.client.close()


@pytest.mark.parametrize("project", [OTHER, ACME])
async def test_an_agent_publishes_into_its_projects_stream_and_is_told_so(server: Server, project: str) -> None:
    before = await kept(server, "cg_evt_v1")
    async with Agent(server, project) as agent:
        subject = f"cg.v1.{project}.public.evt.agent.scout.message"
        done = await agent.client.jetstream().publish(subject, message(), headers={"Nats-Msg-Id": f"{project}-1"})
        again = await agent.client.jetstream().publish(subject, message(), headers={"Nats-Msg-Id": f"{project}-1"})
        assert (done.stream, again.duplicate, agent.complaints) == ("cg_evt_v1", True, [])
    assert await kept(server, "cg_evt_v1") == before + 1


@pytest.mark.parametrize(
    "subject",
    [
        "cg.v1.default.public.evt.agent.scout.message",
        "cg.v1.default.t_run_01.cmd.sys.reply.wait_1",
        "cg.v1.acme.public.evt.sys.timeline.recorded",
        "cg.v1.default.t_run_01.evt.sys.timeline.recorded",
        "cg.v1.default.t_run_01.str.agent.scout.chunk",
        "sessions.run_01.results",
        "tenant.default.sessions.run_01.results",
        "workflow.general.note",
        "operators.scout.events.found",
        "$KV.context-leads.a",
        "$JS.API.STREAM.PURGE.cg_evt_v1",
        "$JS.API.STREAM.DELETE.cg_evt_v1",
        "$JS.API.STREAM.UPDATE.cg_evt_v1",
        "$JS.API.STREAM.MSG.GET.cg_evt_v1",
        "$JS.API.CONSUMER.CREATE.cg_evt_v1.spy.>",
        "$JS.API.CONSUMER.MSG.NEXT.cg_evt_v1.openvibe-bridge",
        "$JS.ACK.cg_evt_v1.openvibe-bridge.1.1.1.1.0",
    ],
)
async def test_an_agent_may_not_speak_for_others_nor_touch_a_stream(server: Server, subject: str) -> None:
    before = [await kept(server, stream.name) for stream in STREAMS]
    async with Agent(server, ACME) as agent:
        with pytest.raises((NATSError, TimeoutError)):
            await agent.client.request(subject, message(), timeout=1)
        assert await agent.refused(), agent.complaints
    assert [await kept(server, stream.name) for stream in STREAMS] == before


DECIDING = (
    "sessions.run_01.approvals",
    "sessions.run_01.approvals.lead",
    "cg.v1.{project}.public.evt.user.ada.message",
    "cg.v1.{project}.u_ada.cmd.sys.ui.action",
)


def deciding(project: str) -> list[str]:
    return [tenancy.outward(project, subject.format(project=project)) for subject in DECIDING]


@pytest.mark.parametrize("project", [OTHER, ACME])
async def test_an_agent_decides_and_speaks_in_nobodys_name(server: Server, project: str) -> None:
    before = [await kept(server, stream.name) for stream in STREAMS]
    for subject in deciding(project):
        async with Agent(server, project) as agent:
            with pytest.raises((NATSError, TimeoutError)):
                await agent.client.request(subject, message(), timeout=1)
            assert await agent.refused(), subject
    assert [await kept(server, stream.name) for stream in STREAMS] == before


async def test_an_agent_has_nobody_else_decide_by_answering_it(server: Server) -> None:
    before = await kept(server, "sessions")
    spoken, gate = "cg.v1.default.public.evt.agent.scout.message", "sessions.run_01.approvals"
    async with Agent(server, OTHER) as agent, Agent(server, OTHER) as other:
        heard = await other.client.subscribe(spoken)
        assert not await other.refused()
        await agent.client.publish(spoken, message("asked"), reply=gate)
        # What one agent asks another one, and what the stream says, goes to where the asker wants it answered.
        await other.client.publish((await heard.next_msg(timeout=5)).reply, message("answered"))
        assert not await agent.refused()
        await other.client.flush()
    async with _ours(server) as client:
        await client.jetstream().publish("sessions.run_01.work", message())
    assert await kept(server, "sessions") == before + 1


@pytest.mark.parametrize("project", [OTHER, ACME])
async def test_an_approver_hears_what_is_asked_and_decides_in_its_project_only(server: Server, project: str) -> None:
    gate, _, words, action = deciding(project)
    elsewhere = deciding(ACME if project == OTHER else OTHER)
    async with Approver(server, project) as approver, Agent(server, project) as agent, _ours(server) as ours:
        readers = [await client.subscribe(gate) for client in (approver.client, agent.client)]
        assert not await approver.refused()
        assert not await agent.refused()
        await ours.publish(gate, message("asked"))
        for reader in readers:
            assert (await reader.next_msg(timeout=5)).data == message("asked")
        for subject, stream in ((gate, "sessions"), (words, "cg_evt_v1"), (action, "cg_cmd_v1")):
            assert (await approver.client.jetstream().publish(subject, message("granted"))).stream == stream
        assert approver.complaints == []
    beyond = [
        *elsewhere,
        tenancy.outward(project, "sessions.run_01.results"),
        f"cg.v1.{project}.public.evt.agent.ada.x",
    ]
    for subject in beyond:
        async with Approver(server, project) as approver:
            with pytest.raises((NATSError, TimeoutError)):
                await approver.client.request(subject, message(), timeout=1)
            assert await approver.refused(), subject


@pytest.mark.parametrize("project", [OTHER, ACME])
def test_whatever_the_bridge_reads_a_projects_agents_or_its_approvers_may_say(project: str) -> None:
    agents, approvers = accounts.outside(project)
    assert not set(agents.said) & set(approvers.said)
    said = (*agents.said, *approvers.said)
    read = {tenancy.outward(project, pattern) for row in CONSUMERS for pattern in row.patterns if ours(pattern)}
    assert not {pattern for pattern in read if not any(matches(pattern, subject) for subject in said)}


def ours(pattern: str) -> bool:
    return tenancy.inward(pattern)[0] == tenancy.DEFAULT


async def test_agents_of_external_runtimes_speak_by_each_prefix_that_is_set() -> None:
    prefixes = ("workflow", "argo.workflow")
    with servers.closed_nats(OTHER, ACME, prefixes=prefixes) as server:
        await furnished(server, streams(prefixes))
        for project, prefix in itertools.product((OTHER, ACME), prefixes):
            async with Agent(server, project) as agent:
                subject = tenancy.outward(project, f"{prefix}.general.note")
                assert (await agent.client.jetstream().publish(subject, message())).stream == "agent-comms"


@pytest.mark.parametrize("project", [OTHER, ACME])
@pytest.mark.parametrize("verb", ["PURGE", "DELETE"])
async def test_no_agent_purges_or_deletes_a_stream(server: Server, project: str, verb: str) -> None:
    async with Agent(server, project) as agent:
        jetstream = agent.client.jetstream(timeout=1)
        act = jetstream.purge_stream if verb == "PURGE" else jetstream.delete_stream
        with pytest.raises((APIError, NATSError, TimeoutError, NoStreamResponseError)):
            await act("cg_evt_v1")
        assert await agent.refused()


@pytest.mark.parametrize("subject", [THREAD, "cg.v1.default.>", "cg.>", ">", "sessions.*.work", "$JS.>", "_R_.>"])
async def test_an_agent_cannot_hear_what_is_said_in_another_project(server: Server, subject: str) -> None:
    heard: list[str] = []

    async def hear(found: Any) -> None:
        heard.append(found.subject)

    async with Agent(server, ACME) as agent, _ours(server) as ours:
        await agent.client.subscribe(subject, cb=hear)
        assert await agent.refused()
        await ours.publish(THREAD, message())
        await ours.publish("sessions.run_01.work", message())
        await ours.flush()
        await agent.client.flush()
    assert heard == []


async def test_an_agent_hears_its_own_projects_threads_words_and_work(server: Server) -> None:
    told = {
        THREAD: THREAD,
        "cg.v1.default.t_run_01.str.agent.scout.chunk": "cg.v1.default.*.str.>",
        "cg.v1.default.t_run_01.cmd.tool.weather.call": "cg.v1.default.*.cmd.tool.>",
        "sessions.run_01.work": "sessions.*.work",
        "operators.scout.events.found": "operators.*.events.>",
    }
    async with Agent(server, OTHER) as agent, _ours(server) as ours:
        readers = {subject: await agent.client.subscribe(pattern) for subject, pattern in told.items()}
        assert not await agent.refused(), agent.complaints
        for subject, reader in readers.items():
            await ours.publish(subject, message(subject))
            assert (await reader.next_msg(timeout=5)).data == message(subject)


async def test_agents_of_default_hear_nothing_of_the_work_of_another_project(server: Server) -> None:
    work = "tenant.acme.sessions.run_02.work"
    async with Agent(server, OTHER) as ours, Agent(server, ACME) as theirs, _ours(server) as site:
        tasks = await theirs.client.subscribe("tenant.acme.sessions.*.work")
        everything = await ours.client.subscribe("sessions.*.work")
        assert not await theirs.refused()
        await site.publish(work, message())
        assert (await tasks.next_msg(timeout=5)).subject == work
        done = await theirs.client.jetstream().publish("tenant.acme.sessions.run_02.results", message())
        assert done.stream == "sessions"
        with pytest.raises(TimeoutError):
            await everything.next_msg(timeout=0.5)
        await ours.client.subscribe(work)
        assert await ours.refused()


async def test_an_agent_asks_an_operator_and_is_answered(server: Server) -> None:
    async with Agent(server, OTHER) as agent, _ours(server) as ours:

        async def answer(question: Any) -> None:
            await question.respond(b"42")

        await ours.subscribe("operators.scout.request.answer", cb=answer)
        await ours.flush()
        assert (await agent.client.request("operators.scout.request.answer", b"?", timeout=5)).data == b"42"
        with pytest.raises(NoRespondersError):
            await agent.client.request("operators.scout.request.nothing", b"?", timeout=5)


async def test_without_credentials_nobody_gets_in_and_is_told_why(server: Server) -> None:
    bus = NatsBus(server.url, certificates=str(server.folder), patience=2)
    with pytest.raises(BusError, match=r"does not let us in .*set NATS_CREDENTIALS"):
        await bus.connect()


async def test_a_key_that_the_server_does_not_know_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "stranger.nk").write_text(nkeys.new().seed)
    bus = NatsBus(server.url, credentials=str(tmp_path / "stranger.nk"), certificates=str(server.folder), patience=2)
    with pytest.raises(BusError, match=r"does not let us in .*does it know the key in .*stranger\.nk"):
        await bus.connect()


async def test_a_ca_that_did_not_sign_the_servers_certificate_is_no_reason_to_trust_it(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(certificates.authority().certificate)
    bus = NatsBus(
        server.url, credentials=str(server.folder / "openvibe-site.nk"), certificates=str(tmp_path), patience=2
    )
    with pytest.raises(BusError, match=r"its certificate is not trusted .*does .*ca\.pem belong to it"):
        await bus.connect()


async def test_files_that_are_missing_are_named(server: Server, tmp_path: Path) -> None:
    for options in ({"credentials": str(tmp_path / "no.nk")}, {"certificates": str(tmp_path)}):
        with pytest.raises(BusError, match=str(tmp_path)):
            await NatsBus(server.url, **options).connect()


async def test_a_client_without_tls_gets_no_further_than_the_door(server: Server) -> None:
    with pytest.raises((NATSError, OSError, TimeoutError)):
        await nats.connect(server.url.replace("tls://", "nats://"), allow_reconnect=False, connect_timeout=2)


@pytest.mark.django_db
def test_the_bus_command_works_over_tls_and_accounts(server: Server, settings: Any, other_project: Project) -> None:
    settings.NATS_URL = server.url
    open_to_us = {"nats_credentials": str(server.folder / "openvibe-site.nk"), "nats_certificates": str(server.folder)}
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, **open_to_us)
    with pytest.raises(CommandError, match="differences"):
        call_command("bus", "check")
    call_command("bus", "apply")
    call_command("bus", "check")
    for stream in readers.streams(other_project.id):
        assert asyncio.run(kept(server, stream.name)) == 0
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, nats_credentials="")
    with pytest.raises(CommandError, match="does not let us in"):
        call_command("bus", "check")
