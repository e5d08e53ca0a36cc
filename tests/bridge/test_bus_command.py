"""`manage.py bus`: a real server compared with the table, made as it says, and never emptied for it."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nats
import pytest
import yaml
from django.core.management import CommandError, call_command
from nats.js import JetStreamContext
from nats.js.api import (
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    ReplayPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from openvibe.bus.protocol import DUPLICATE_WINDOW, HISTORY
from openvibe.protocol import readers, tenancy
from openvibe.protocol.streams import CONSUMERS, STREAMS
from operators.bridge import furnishing
from operators.models import Project
from tests import servers
from tests.bridge.conftest import eventually
from tests.servers import Server

EVENTS = tenancy.everybodys("operators.*.events.>")
EVERYBODYS = ["workflow.>", "tenant.*.workflow.>"]
NACK = Path(__file__).resolve().parents[2] / "deploy" / "nack"


pytestmark = pytest.mark.django_db


@pytest.fixture
def server(settings: Any) -> Iterator[Server]:
    with servers.nats() as running:
        settings.NATS_URL = running.url
        yield running


def bus(*arguments: str) -> str:
    output = io.StringIO()
    call_command("bus", *arguments, stdout=output)
    return output.getvalue()


def differences(*arguments: str) -> list[tuple[str, str, str]]:
    output = io.StringIO()
    with pytest.raises(CommandError, match="differences between"):
        call_command("bus", *arguments, "--json", stdout=output)
    return [(item["state"], item["what"], item["field"]) for item in json.loads(output.getvalue())]


def on(server: Server, act: Callable[[JetStreamContext], Awaitable[Any]]) -> Any:
    async def perform() -> Any:
        client = await nats.connect(server.url)
        try:
            return await act(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(perform())


def test_an_empty_server_is_furnished_and_then_has_what_is_needed(server: Server) -> None:
    assert {state for state, _, _ in differences("check")} == {"missing"}
    told = bus("apply")
    assert "stream agent-comms is missing → made" in told
    assert bus("check") == "NATS has what OpenVibe needs\n"
    assert bus("apply") == "NATS has what OpenVibe needs\n"
    names = on(server, lambda jetstream: jetstream.streams_info())
    assert {info.config.name for info in names} == {stream.name for stream in STREAMS}


def test_what_can_be_changed_is_changed_and_nothing_is_lost(server: Server) -> None:
    async def differently(jetstream: JetStreamContext) -> None:
        await jetstream.add_stream(
            StreamConfig(name="agent-comms", subjects=["workflow.old.>"], max_age=60, max_bytes=1_000_000)
        )
        await jetstream.publish("workflow.old.message", b"kept")
        narrow = ConsumerConfig(durable_name="openvibe-bridge", ack_policy="explicit", filter_subject="workflow.old.x")
        await jetstream.add_consumer("agent-comms", narrow)

    on(server, differently)
    what = ("stream agent-comms", "consumer openvibe-bridge of agent-comms")
    expected = [
        ("different", what[0], "subjects"),
        ("different", what[0], "max_age"),
        # The server keeps it as short as what it covers.
        ("different", what[0], "duplicate_window"),
        ("different", what[1], "patterns"),
    ]
    assert [item for item in differences("check") if item[1] in what] == expected
    bus("apply")
    assert bus("check") == "NATS has what OpenVibe needs\n"
    info = on(server, lambda jetstream: jetstream.stream_info("agent-comms"))
    # A bound that somebody has set stays; the table has none.
    assert (info.state.messages, info.config.subjects, info.config.max_bytes) == (1, EVERYBODYS, 1_000_000)


STREAM_FAULTS: dict[str, dict[str, Any]] = {
    "duplicate_window": {"duplicate_window": 30.0},
    "discard": {"discard": DiscardPolicy.NEW, "max_msgs_per_subject": 9, "discard_new_per_subject": True},
    "no_ack": {"no_ack": True},
    "max_msgs": {"max_msgs": 9},
    "max_msgs_per_subject": {"max_msgs_per_subject": 9},
    "max_msg_size": {"max_msg_size": 900},
    "max_consumers": {"max_consumers": 9},
}


@pytest.mark.parametrize("field", STREAM_FAULTS)
def test_a_stream_that_would_lose_or_repeat_what_is_said_is_mended_in_place(server: Server, field: str) -> None:
    table = next(stream for stream in STREAMS if stream.name == "operators")

    async def differently(jetstream: JetStreamContext) -> None:
        await jetstream.add_stream(
            StreamConfig(
                name=table.name, subjects=list(table.subjects), max_age=table.max_age.total_seconds(),
                max_bytes=1_000_000, **STREAM_FAULTS[field],
            )
        )  # fmt: skip
        await jetstream.add_consumer(table.name, ConsumerConfig(durable_name="observer", ack_policy="explicit"))
        # A stream may tell nobody that it keeps something.
        client = await nats.connect(server.url)
        await client.publish("operators.a.events.b", b"kept")
        await client.close()

    on(server, differently)
    found = {item for item in differences("check") if item[1] == "stream operators"}
    assert ("different", "stream operators", field) in found
    assert {item[2] for item in found} <= STREAM_FAULTS[field].keys()
    bus("apply")
    assert bus("check") == "NATS has what OpenVibe needs\n"
    info = on(server, lambda jetstream: jetstream.stream_info("operators"))
    assert (info.state.messages, info.state.consumer_count, info.config.max_bytes) == (1, 2, 1_000_000)


CONSUMER_FAULTS: dict[str, dict[str, Any]] = {
    "headers_only": {"headers_only": True},
    "backoff": {"backoff": [1.0, 5.0], "max_deliver": 3},
    "inactive_threshold": {"inactive_threshold": 60.0},
}


@pytest.mark.parametrize("field", CONSUMER_FAULTS)
def test_a_reader_that_would_miss_something_is_mended_where_it_stands(server: Server, field: str) -> None:
    on(server, partial(read_differently, **CONSUMER_FAULTS[field]))
    what = "consumer openvibe-bridge of operators"
    found = {item for item in differences("check") if item[1] == what}
    assert ("different", what, field) in found
    # A backoff is what the server takes for the time to acknowledge.
    assert {item[2] for item in found} <= {*CONSUMER_FAULTS[field], "ack_wait"}
    bus("apply")
    assert bus("check") == "NATS has what OpenVibe needs\n"
    info = on(server, lambda jetstream: jetstream.consumer_info("operators", "openvibe-bridge"))
    assert (info.delivered.stream_seq, info.num_pending) == (1, 1)


def test_a_reader_in_the_pace_of_long_ago_is_explained_and_what_else_differs_is_changed(server: Server) -> None:
    on(server, partial(read_differently, replay_policy=ReplayPolicy.ORIGINAL, headers_only=True))
    output = io.StringIO()
    with pytest.raises(CommandError, match="1 differences"):
        call_command("bus", "apply", stdout=output)
    what = "consumer openvibe-bridge of operators"
    assert f"{what}: replay_policy is 'original', 'instant' is wanted. NATS cannot change it" in output.getvalue()
    assert f"{what}: headers_only is True, False is wanted → changed" in output.getvalue()
    assert differences("check") == [("fixed", what, "replay_policy")]


async def read_differently(jetstream: JetStreamContext, **options: Any) -> None:
    """Make the bridge's reader of operators' events with something wrong; it has read the first of two messages."""
    await jetstream.add_stream(
        StreamConfig(name="operators", subjects=list(EVENTS), max_age=7 * 86400, duplicate_window=DUPLICATE_WINDOW)
    )
    config = ConsumerConfig(
        durable_name="openvibe-bridge", ack_policy="explicit", filter_subjects=list(EVENTS), **options
    )
    await jetstream.add_consumer("operators", config)
    for _ in range(2):
        await jetstream.publish("operators.a.events.b", b"kept")
    reader = await jetstream.pull_subscribe_bind("openvibe-bridge", "operators")
    [message] = await reader.fetch(1)
    await message.ack_sync()


def test_a_reader_that_an_administrator_has_paused_is_told_and_left_paused(server: Server) -> None:
    bus("apply")
    consumer = CONSUMERS[0]
    on(server, lambda stream: stream.pause_consumer(consumer.stream, consumer.durable, "2999-01-01T00:00:00Z"))

    what = f"consumer {consumer.durable} of {consumer.stream}"
    assert differences("apply") == [("fixed", what, "paused")]
    output = io.StringIO()
    with pytest.raises(CommandError):
        call_command("bus", "check", stdout=output)
    assert f"`nats consumer resume {consumer.stream} {consumer.durable}`" in output.getvalue()
    assert on(server, lambda stream: stream.consumer_info(consumer.stream, consumer.durable)).paused


def test_what_cannot_be_changed_is_explained_and_left_alone(server: Server) -> None:
    async def differently(jetstream: JetStreamContext) -> None:
        memory = StreamConfig(
            name="sessions", subjects=list(tenancy.everybodys("sessions.>")), max_age=7 * 86400,
            storage=StorageType.MEMORY, retention=RetentionPolicy.WORK_QUEUE,
        )  # fmt: skip
        await jetstream.add_stream(memory)
        await jetstream.publish("sessions.a.results", b"kept")
        await jetstream.add_stream(StreamConfig(name="operators", subjects=list(EVENTS), max_age=7 * 86400))
        new = ConsumerConfig(durable_name="openvibe-bridge", ack_policy="explicit", deliver_policy=DeliverPolicy.NEW,
                             filter_subjects=list(EVENTS))  # fmt: skip
        await jetstream.add_consumer("operators", new)

    on(server, differently)
    output = io.StringIO()
    with pytest.raises(CommandError, match="3 differences"):
        call_command("bus", "apply", stdout=output)
    told = output.getvalue()
    assert "stream sessions: storage is 'memory', 'file' is wanted. NATS cannot change it in place" in told
    assert "`nats stream rm sessions`" in told
    assert "consumer openvibe-bridge of operators: deliver_policy is 'new', 'all' is wanted" in told
    info = on(server, lambda jetstream: jetstream.stream_info("sessions"))
    assert (info.state.messages, info.config.storage) == (1, "memory")
    fixed = {("stream sessions", "storage"), ("stream sessions", "retention")}
    assert fixed <= {(what, field) for state, what, field in differences("check") if state == "fixed"}


def test_the_older_prefix_widens_a_stream_that_exists(server: Server, settings: Any) -> None:
    bus("apply")
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, workflow_prefix=("workflow", "argo.workflow"))
    bus("apply")
    info = on(server, lambda jetstream: jetstream.stream_info("agent-comms"))
    assert info.config.subjects == list(tenancy.everybodys("workflow.>", "argo.workflow.>"))


def test_readers_hold_as_much_as_is_set(server: Server, settings: Any) -> None:
    bus("apply")
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, pull_inflight=50)
    assert {item[2] for item in differences("check")} == {"max_ack_pending"}
    bus("apply")
    info = on(server, lambda jetstream: jetstream.consumer_info("sessions", "openvibe-bridge"))
    assert info.config.max_ack_pending == 50


def test_copies_that_a_single_server_cannot_keep_are_explained(server: Server, settings: Any) -> None:
    bus("apply")
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, nats_replicas=3)
    output = io.StringIO()
    with pytest.raises(CommandError, match="differences between"):
        call_command("bus", "apply", stdout=output)
    assert "stream sessions: replicas is 1, 3 is wanted. The server refuses the change" in output.getvalue()


def test_streams_of_a_cluster_get_the_copies_that_are_wanted_and_keep_more(settings: Any) -> None:
    with servers.nats_cluster() as nodes:
        settings.NATS_URL = ",".join(node.url for node in nodes)
        bus("apply")
        settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, nats_replicas=3)
        assert {item[2] for item in differences("check")} == {"replicas"}
        bus("apply")
        settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, nats_replicas=1)
        assert bus("check") == "NATS has what OpenVibe needs\n"
        assert on(nodes[1], lambda jetstream: jetstream.stream_info("sessions")).config.num_replicas == 3
        eventually(lambda: len(_copies(nodes[1])) == 2)


def test_buckets_get_the_revisions_and_copies_that_are_wanted_and_keep_more(settings: Any, project: Project) -> None:
    async def differently(jetstream: JetStreamContext) -> None:
        short = await jetstream.create_key_value(bucket="context-leads", history=1)
        await short.put("acme", b"kept")
        await jetstream.create_key_value(bucket="registry", history=HISTORY + 1, replicas=3)

    with servers.nats_cluster() as nodes:
        settings.NATS_URL = ",".join(node.url for node in nodes)
        bus("apply")
        assert bus("check") == "NATS has what OpenVibe needs\n", "buckets are made by whoever first uses them"
        on(nodes[0], differently)
        assert differences("check") == [("different", "bucket context-leads", "history")]
        settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, nats_replicas=3)
        assert {item[2] for item in differences("check") if item[1] == "bucket context-leads"} == {
            "history",
            "replicas",
        }
        bus("apply")
        settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, nats_replicas=1)
        assert bus("check") == "NATS has what OpenVibe needs\n"

        async def kept(jetstream: JetStreamContext) -> tuple[int, int, bytes | None]:
            config = (await jetstream.stream_info("KV_context-leads")).config
            value = await (await jetstream.key_value("context-leads")).get("acme")
            return config.max_msgs_per_subject, config.num_replicas, value.value

        assert on(nodes[1], kept) == (HISTORY, 3, b"kept")


def _copies(node: Server) -> list[Any]:
    """The copies beside the leader's; none while there is no leader."""
    return on(node, lambda jetstream: jetstream.stream_info("sessions")).cluster.replicas or []


def test_a_server_that_is_away_is_one_sentence(settings: Any) -> None:
    settings.NATS_URL = "nats://user:hush@127.0.0.1:1"
    with pytest.raises(CommandError, match=r"^NATS does not answer at nats://127\.0\.0\.1:1") as caught:
        bus("check")
    assert caught.value.returncode == 2


@pytest.mark.parametrize("name", ["streams.yaml", "consumers.yaml"])
def test_the_yaml_in_deploy_is_current(name: str, tmp_path: Path) -> None:
    bus("yaml", "--folder", str(tmp_path))
    assert (NACK / name).read_text("utf-8") == (tmp_path / name).read_text("utf-8"), (
        "run: manage.py bus yaml --folder deploy/nack"
    )


def test_the_yaml_says_what_the_table_says() -> None:
    resources = list(yaml.safe_load_all(bus("yaml")))
    assert {item["apiVersion"] for item in resources} == {"jetstream.nats.io/v1beta2"}
    streams = {item["spec"]["name"]: item["spec"] for item in resources if item["kind"] == "Stream"}
    assert set(streams) == {stream.name for stream in STREAMS}
    comms = streams["agent-comms"]
    assert (comms["maxAge"], comms["maxBytes"], comms["subjects"]) == ("168h", 10 * 1024**3, EVERYBODYS)
    readers = [item["spec"] for item in resources if item["kind"] == "Consumer"]
    assert [(item["streamName"], item["durableName"]) for item in readers] == [(c.stream, c.durable) for c in CONSUMERS]
    assert {item["ackPolicy"] for item in readers} == {"explicit"}


def test_the_yaml_says_what_a_server_needs_as_it_is_set(settings: Any, project: Project) -> None:
    settings.OPENVIBE = dataclasses.replace(
        settings.OPENVIBE, workflow_prefix=("workflow", "argo.workflow"), server="mill", pull_inflight=50,
        nats_replicas=5, nats_credentials="openvibe-site.nk",
    )  # fmt: skip
    resources = list(yaml.safe_load_all(bus("yaml")))
    streams = {item["spec"]["name"]: item["spec"] for item in resources if item["kind"] == "Stream"}
    table = furnishing.table()
    assert set(streams) == {row.name for row in table.streams} > {row.name for row in STREAMS}
    assert streams["agent-comms"]["subjects"] == list(tenancy.everybodys("workflow.>", "argo.workflow.>"))
    assert {spec["replicas"] for spec in streams.values()} == {5}
    drawn = streams[f"cg_cmd_v1-{project.id}"]
    assert (drawn["maxConsumers"], "subjects" in drawn) == (readers.MOST, False)
    patterns = [f"cg.v1.{project.id}.*.cmd.{component}.>" for component in ("agent", "tool")]
    assert drawn["sources"] == [{"name": "cg_cmd_v1", "filterSubject": pattern} for pattern in patterns]
    found = [item["spec"] for item in resources if item["kind"] == "Consumer"]
    assert {item["durableName"] for item in found} == {"openvibe-bridge-mill"}
    assert {item["maxAckPending"] for item in found} == {50}
    assert [item["filterSubjects"] for item in found] == [list(row.patterns) for row in table.consumers]


@pytest.mark.parametrize("kind", ["stream", "consumer"])
def test_no_two_resources_have_one_name(settings: Any, project: Project, kind: str) -> None:
    settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, nats_credentials="openvibe-site.nk")
    for name in ("acme_one", "acme-one", "Acme-one", "acme-", "acme_"):
        Project.objects.create(id=name, name=name)
    names = []
    for server in ("mill", "Mill", "mill_", "mill-"):
        settings.OPENVIBE = dataclasses.replace(settings.OPENVIBE, server=server)
        found = [item for item in yaml.safe_load_all(bus("yaml")) if item["kind"] == kind.title()]
        names += [item["metadata"]["name"] for item in found if kind == "consumer" or server == "mill"]
    assert len(names) == len(set(names)) >= 15
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) for name in names)
    assert {"cg-cmd-v1", "cg-cmd-v1-acme-one", "cg-evt-v1-openvibe-bridge-mill"} & set(names)
