"""A flood of agents' messages while the bridge is killed: every good one once in the database, every bad one a letter.

Four publishers speak at once, each of its own run and to everybody. One message in a hundred cannot be read, one in
twenty comes twice. `python -m tests.faults.flood --messages 100000` plays a large one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import nats
import psycopg

from openvibe.protocol import workflow
from tests import bridge_process, servers
from tests.acceptance.site import until
from tests.bridge_process import BridgeProcess

Kind = Literal["embedded", "grown"]

PUBLISHERS = 4
WINDOW = 100
BAD, TWICE = 0.01, 0.05
#: At which shares of the good messages the bridge is killed.
KILLS = (0.25, 0.6)
#: The longest that a publisher's messages, and those that a killed bridge had in hand, may take, in seconds.
PATIENCE, PATIENCE_EACH = 180.0, 0.02

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Sent:
    """One message: where it goes, its body, and whether it can be read."""

    subject: str
    body: bytes
    good: bool
    channel: str = ""
    id: str = ""


@dataclass
class Report:
    """What came of a flood, as one JSON line tells it."""

    kind: Kind
    messages: int
    sent: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    def line(self) -> dict[str, Any]:
        """Return what is worth a line."""
        return asdict(self)


def play(kind: Kind, home: Path, *, messages: int, seed: int = 1) -> Report:
    """Let a flood of so many different messages come, and judge what is in the database afterwards."""
    report = Report(kind, messages)
    plan = [list(_plan(publisher, messages // PUBLISHERS, seed)) for publisher in range(PUBLISHERS)]
    with ExitStack() as stack:
        url = servers.new_database(stack.enter_context(servers.postgres()).url) if kind == "grown" else ""
        server = stack.enter_context(servers.nats())
        bridge = stack.enter_context(bridge_process.running(home, nats_url=server.url, database_url=url))
        books = Books(url, home)
        begin = time.monotonic()
        report.kills = asyncio.run(_blow(server.url, bridge, books, plan))
        report.seconds = round(time.monotonic() - begin, 1)
        sent = [item for part in plan for item in part]
        report.sent = dict(Counter("good" if item.good else "bad" for item in sent))
        report.violations = list(_violations(books, sent))
    return report


def _plan(publisher: int, count: int, seed: int) -> Iterator[Sent]:
    """Yield a publisher's messages in order; what comes twice comes again some messages later."""
    dice = random.Random(f"{seed}/{publisher}")
    again: list[Sent] = []
    for number in range(count):
        if dice.random() < BAD:
            yield _bad(dice, publisher, number)
            continue
        item = _good(dice, publisher, number)
        yield item
        if dice.random() < TWICE:
            again.append(item)
        if again and dice.random() < 0.2:
            yield again.pop(dice.randrange(len(again)))
    yield from again


def _good(dice: random.Random, publisher: int, number: int) -> Sent:
    name = f"p{publisher}-{number}"
    body = {"id": name, "content": f"message {number} of {publisher}", "attrs": {"n": number}}
    if dice.random() < 0.5:
        run = workflow.run_id("default", f"uid-{publisher}")
        subject = f"workflow.ns.flood.uid-{publisher}.agent.a{publisher}.message"
        return Sent(subject, json.dumps(body).encode(), True, f"t_{run}", name)
    subject = dice.choice(["workflow.general.message", f"cg.v1.default.public.evt.agent.a{publisher}.message"])
    return Sent(subject, json.dumps({**body, "attrs": {}}).encode(), True, "public", name)


def _bad(dice: random.Random, publisher: int, number: int) -> Sent:
    name = f"p{publisher}-{number}"
    public = f"cg.v1.default.public.evt.agent.a{publisher}.message"
    subject, body = dice.choice(
        [
            (public, b"{no json " + name.encode()),
            (public, json.dumps({"content": f"no id {name}"}).encode()),
            (public, json.dumps({"id": name, "content": f"a NUL \0 {name}"}).encode()),
            ("workflow.general.message", json.dumps({"id": name, "nothing": "to say"}).encode()),
            ("cg.v1.default.t_run_nobody.evt.agent.x.message", json.dumps({"id": name, "content": "x"}).encode()),
            ("cg.v1.nowhere.public.evt.agent.x.message", json.dumps({"id": name, "content": "x"}).encode()),
        ]
    )
    return Sent(subject, body, False)


async def _blow(url: str, bridge: BridgeProcess, books: Books, plan: list[list[Sent]]) -> int:
    """Publish everything and kill the bridge on the way; return how often, once nothing is left to be read."""
    good = {(item.channel, item.subject, item.id) for part in plan for item in part if item.good}
    patience = PATIENCE + PATIENCE_EACH * len(good)
    publishing = [asyncio.create_task(_publish(url, part)) for part in plan]
    for goal in [int(share * len(good)) for share in KILLS]:
        await asyncio.to_thread(until, partial(books.hold, goal), f"{goal} are events", seconds=patience)
        await asyncio.to_thread(bridge.kill)
        bridge.start()
    await asyncio.gather(*publishing)
    await _read(url, patience)
    return len(KILLS)


async def _publish(url: str, part: list[Sent]) -> None:
    """Have every message kept by its stream; the streams are there as soon as the bridge is."""
    client = await nats.connect(url)
    jetstream = client.jetstream(timeout=30)
    for start in range(0, len(part), WINDOW):
        await asyncio.gather(*[_kept(jetstream, item) for item in part[start : start + WINDOW]])
    await client.close()


async def _kept(jetstream: Any, item: Sent) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            await jetstream.publish(item.subject, item.body)
            return
        except nats.errors.Error:
            # Kept or not, nobody knows: another one of the same is what agents send, too.
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def _read(url: str, patience: float) -> None:
    """Return when every durable reader has read and acknowledged all of its stream."""
    client = await nats.connect(url)
    jetstream = client.jetstream()
    deadline = time.monotonic() + patience
    while True:
        readers = [await jetstream.consumer_info(stream, "openvibe-bridge") for stream in ("agent-comms", "cg_evt_v1")]
        left = sum(reader.num_pending + reader.num_ack_pending for reader in readers)
        if not left:
            break
        assert time.monotonic() < deadline, f"{left} messages are still to be read"
        await asyncio.sleep(0.2)
    await client.close()


def _violations(books: Books, sent: list[Sent]) -> Iterator[str]:
    wanted = {(item.channel, f"{item.subject}:{item.id}"): item for item in sent if item.good}
    told = books.rows("SELECT channel, message_id, data FROM operators_event WHERE kind = 'agent.message'")
    found = Counter((channel, name) for channel, name, _ in told)
    yield from (f"not in the database: {key}" for key in wanted.keys() - found.keys())
    yield from (f"in the database, and nobody said it: {key}" for key in found.keys() - wanted.keys())
    yield from (f"{number} times in the database: {key}" for key, number in found.items() if number > 1)
    for channel, name, data in told:
        item = wanted.get((channel, name))
        content = (data if isinstance(data, dict) else json.loads(data))["content"]
        if item and content != json.loads(item.body)["content"]:
            yield f"changed on the way: {name} is {content!r}"
    yield from _letters(books, sent)
    yield from _others(books)
    yield from _holes(books)


def _letters(books: Books, sent: list[Sent]) -> Iterator[str]:
    wanted = Counter((item.subject, item.body) for item in sent if not item.good)
    rows = books.rows("SELECT subject, body FROM operators_deadletter")
    found = Counter((subject, bytes(body)) for subject, body in rows)
    yield from (f"no dead letter: {item}" for item in wanted.keys() - found.keys())
    yield from (f"a dead letter that nobody wrote: {item}" for item in found.keys() - wanted.keys())
    yield from (f"{number} dead letters: {item}" for item, number in found.items() if number > 1)


def _others(books: Books) -> Iterator[str]:
    """Beside what was said there is a word of each dead letter, and of each run's start, on its thread and publicly."""
    kinds = dict(books.rows("SELECT kind, count(*) FROM operators_event GROUP BY kind"))
    kinds.pop("agent.message", None)
    letters = books.rows("SELECT count(*) FROM operators_deadletter")[0][0]
    runs = books.rows("SELECT count(*) FROM operators_run")[0][0]
    started = books.rows("SELECT count(*) FROM operators_event WHERE kind = 'run.started' AND channel <> 'public'")
    if started[0][0] != runs or runs > PUBLISHERS:
        yield f"{runs} runs, {started[0][0]} of which have begun"
    if kinds.pop("error", 0) != letters:
        yield f"{letters} dead letters, and not as many words of them"
    kinds.pop("run.started", None)
    if kinds:
        yield f"nobody spoke of {kinds}"


def _holes(books: Books) -> Iterator[str]:
    sql = "SELECT channel, count(*), min(seq), max(seq) FROM operators_event GROUP BY channel"
    for channel, number, first, last in books.rows(sql):
        if (first, last) != (1, number):
            yield f"{channel} has {number} events, numbered from {first} to {last}"


@dataclass
class Books:
    """The database, read past all of the product's code."""

    url: str
    home: Path

    def rows(self, sql: str) -> list[Row]:
        """Return what a statement finds."""
        if self.url:
            with psycopg.connect(self.url) as connection:
                return connection.execute(sql).fetchall()
        with closing(sqlite3.connect(self.home / "openvibe.db", timeout=60)) as connection:
            return connection.execute(sql).fetchall()

    def hold(self, goal: int) -> bool:
        """Tell whether there are so many events, by the numbers that their channels have given."""
        sql = "SELECT (SELECT coalesce(sum(last_seq), 0) FROM operators_channel WHERE name = 'public')" \
              " + (SELECT coalesce(sum(last_seq), 0) FROM operators_run)"  # fmt: skip
        return int(self.rows(sql)[0][0]) >= goal


def main() -> int:
    """Play one flood on each kind; print a JSON line each."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.flood", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, help="how many different messages")
    parser.add_argument("--kind", choices=["embedded", "grown", "both"], default="both", help="the kind of database")
    parser.add_argument("--seed", type=int, default=1, help="what is bad, and what comes twice")
    options = parser.parse_args()
    kinds: tuple[Kind, ...] = ("embedded", "grown") if options.kind == "both" else (options.kind,)
    broken = 0
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix=f"openvibe-flood-{kind}-") as home:
            report = play(kind, Path(home), messages=options.messages, seed=options.seed)
        print(json.dumps({**report.line(), "violations": report.violations[:20]}), flush=True)
        broken += len(report.violations)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
