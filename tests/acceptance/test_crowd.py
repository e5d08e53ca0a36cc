"""One worker plays more runs at once than it has connections to the database: a node that plays holds none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import servers
from tests.acceptance import site as sites
from tests.acceptance.site import ENDED

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]

RUNS, CONNECTIONS = 24, 3

#: Nobody leaves the room before all are in it: with a connection each they would wait for ever.
OPERATORS = f"""
import asyncio
import time
from pathlib import Path

from openvibe import node, operator, workflow

ROOM = Path(__file__).with_name("room")


def full(step):
    return len(list(ROOM.glob(f"{{step}}-*"))) >= {RUNS}


def enter(step, ctx):
    (ROOM / f"{{step}}-{{ctx.run_id}}").touch()
    while not full(step):
        time.sleep(0.05)


@operator(id="crowd")
class Crowd:
    met: int = 0

    @workflow(id="meet", inputs=())
    class Meet:
        @node
        def first(self, state, ctx):
            ctx.log("here")
            ctx.context.put("leads", ctx.run_id, 1)
            enter("first", ctx)
            return {{"met": state["met"] + 1}}

        @node
        def second(self, state, ctx):
            ctx.context.get("leads", ctx.run_id)
            ctx.effect("knock", lambda: enter("second", ctx))
            return {{"met": state["met"] + 1}}

        @node
        async def third(self, state, ctx):
            (ROOM / f"third-{{ctx.run_id}}").touch()
            while not full("third"):
                await asyncio.sleep(0.05)
            return {{"met": state["met"] + 1}}
"""


def test_a_node_that_plays_holds_no_connection_to_the_database(tmp_path: Path) -> None:
    module = tmp_path / "crowd.py"
    module.write_text(OPERATORS)
    (tmp_path / "room").mkdir()
    with (
        servers.postgres() as postgres,
        sites.running(
            tmp_path / "home",
            DATABASE_URL=servers.new_database(postgres.url),
            OPENVIBE_DATABASE_CONNECTIONS=str(CONNECTIONS),
            OPENVIBE_WORKER_THREADS=str(2 * RUNS),
            OPENVIBE_OPERATORS=str(module),
        ) as site,
    ):
        with ThreadPoolExecutor(4) as callers:
            runs = list(callers.map(lambda _: site.start_run("crowd", "meet", {}), range(RUNS)))
        ended = [site.wait_for(run, *ENDED, seconds=120) for run in runs]
    assert [run["status"] for run in ended] == ["completed"] * RUNS, [run["error"] for run in ended]
    assert {run["output"]["met"] for run in ended} == {3}
