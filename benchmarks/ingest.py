"""Messages of four agents through the real bridge into the database, against a bare loop that fetches and copies.

A round stores messages while the bridge is frozen, lets it go, and waits until the last one is an event. Then the bare
loop reads the same messages from the same stream into the same table, under a channel of its own.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass

import nats
import orjson
import psycopg
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from benchmarks.figures import median, tell
from benchmarks.ground import Ground
from tests import bridge_process, servers
from tests.acceptance.site import until
from tests.bridge_process import BridgeProcess

BATCH = 250
#: What is spoken about, and where: to everybody, or by each agent of its own run.
SUBJECTS = {"general": "workflow.general.message", "runs": "workflow.ns.soak.u{0}.agent.a{0}.message"}
PUBLISHERS = 4
#: What is written, in the order of the columns of `COPY`.
COLUMNS = "project_id, channel, seq, kind, node, step_id, actor, data, message_id, created_at"


def measure(ground: Ground) -> None:
    """Tell the rates of both, as medians of several rounds, for the general channel and for runs of agents."""
    if not ground.database:
        print("ingest: PostgreSQL is not installed, `make services` installs it", file=sys.stderr)
        return
    with ExitStack() as stack:
        server = stack.enter_context(servers.nats())
        database = servers.new_database(ground.database)
        asyncio.run(_streams(server.url))
        home = ground.home / "ingest"
        bridge = stack.enter_context(bridge_process.running(home, nats_url=server.url, database_url=database))
        store = stack.enter_context(psycopg.connect(database, autocommit=True))
        place = Place(server.url, database, bridge, store)
        for kind, subject in SUBJECTS.items():
            rounds = [_round(place, subject, ground.options.messages) for _ in range(ground.options.rounds + 1)]
            # The first round warms everything up.
            ours, bare = zip(*rounds[1:], strict=True)
            tell(f"ingest_{kind}", median(ours), "messages/s", where="PostgreSQL", rounds=len(ours),
                 bound="nats-py fetch and COPY, one loop", bound_value=median(bare),
                 ratio=median([one / other for one, other in zip(ours, bare, strict=True)]))  # fmt: skip


@dataclass
class Place:
    """The servers, the real bridge between them, and a look into its database."""

    nats_url: str
    database: str
    bridge: BridgeProcess
    store: psycopg.Connection


def _round(place: Place, subject: str, messages: int) -> tuple[float, float]:
    """Return the bridge's rate and that of the bare loop."""
    place.bridge.signal(signal.SIGSTOP)
    first = asyncio.run(_publish(place.nats_url, subject, messages))
    goal = _count(place.store) + messages
    started = time.perf_counter()
    place.bridge.signal(signal.SIGCONT)
    until(lambda: _count(place.store) >= goal, "all are events", seconds=300, pause=0.002)
    return messages / (time.perf_counter() - started), asyncio.run(_bare(place, first, messages))


async def _streams(url: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().add_stream(StreamConfig(name="agent-comms", subjects=["workflow.>"]))
    await client.close()


async def _publish(url: str, subject: str, messages: int) -> int:
    """Store messages of four agents; return the number of the first one in the stream."""
    client = await nats.connect(url)
    jetstream = client.jetstream()
    first = (await jetstream.stream_info("agent-comms")).state.last_seq + 1

    async def publish(agent: int) -> None:
        for start in range(agent, messages, PUBLISHERS * 100):
            window = range(start, min(start + PUBLISHERS * 100, messages), PUBLISHERS)
            await asyncio.gather(*[jetstream.publish(subject.format(agent), _body(first + each)) for each in window])

    await asyncio.gather(*[publish(agent) for agent in range(PUBLISHERS)])
    await client.close()
    return first


def _body(number: int) -> bytes:
    text = f"Step {number}: read three files, changed two of them, and all of the tests pass."
    return orjson.dumps({"id": f"m{number}", "content": text, "role": "assistant", "attrs": {"tool": "edit"}})


def _count(store: psycopg.Connection) -> int:
    """Count events without looking at them: by the numbers that their channels have given."""
    sql = "SELECT (SELECT coalesce(sum(last_seq), 0) FROM operators_channel WHERE name = 'public')" \
          " + (SELECT coalesce(sum(last_seq), 0) FROM operators_run)"  # fmt: skip
    return int(store.execute(sql).fetchone()[0])


async def _bare(place: Place, first: int, messages: int) -> float:
    """Fetch, copy, commit, acknowledge, with nothing beside; return messages/s."""
    client = await nats.connect(place.nats_url)
    jetstream = client.jetstream()
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, opt_start_seq=first, deliver_policy="by_start_sequence")
    pull = await jetstream.pull_subscribe("workflow.>", durable=f"bare-{first}", stream="agent-comms", config=config)
    with psycopg.connect(place.database) as connection:
        done, started = 0, time.perf_counter()
        while done < messages:
            found = await pull.fetch(BATCH, timeout=5)
            with connection.cursor() as cursor, cursor.copy(f"COPY operators_event ({COLUMNS}) FROM STDIN") as copy:
                for seq, message in enumerate(found, start=first + done):
                    copy.write_row(("default", "bare", seq, "agent.message", "", "", message.subject,
                                    message.data.decode(), str(seq), "2026-01-01T00:00:00Z"))  # fmt: skip
            connection.commit()
            for message in found:
                await message.ack()
            done += len(found)
        await client.flush()
        seconds = time.perf_counter() - started
        connection.execute("DELETE FROM operators_event WHERE channel = 'bare'")
    await client.close()
    return messages / seconds
