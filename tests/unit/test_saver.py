"""LangGraph's public conformance suite over our checkpointer: written through at once, and collected."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.base import id as ids
from langgraph.checkpoint.conformance import validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.conformance.report import CapabilityReport

from openvibe.graph.rows import MemoryRows
from openvibe.graph.saver import RowSaver

CAPABILITIES = sorted(item.value for item in ALL_CAPABILITIES)
WAYS = {"direct": {}, "collecting": {"collect": True}, "fresh": {"collect": True, "fresh": True}}


@pytest.fixture(scope="module", params=WAYS)
def report(request) -> CapabilityReport:
    async def saver() -> AsyncIterator[BaseCheckpointSaver]:
        yield RowSaver(MemoryRows(), **WAYS[request.param])

    # Made by hand, because the suite's decorator keeps a registry for the whole process.
    return asyncio.run(validate(RegisteredCheckpointer(name=request.param, factory=saver)))


def test_the_suite_knows_eight_capabilities():
    assert len(CAPABILITIES) == 8


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_capability_is_detected_and_passes_the_conformance_suite(report, capability):
    result = report.results[capability]
    assert result.detected
    assert result.failures == []
    assert result.tests_passed > 0
    assert result.passed


def put(saver: RowSaver, *, thread_id: str = "t") -> str:
    checkpoint = empty_checkpoint()
    saver.put({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}, checkpoint, {"step": 0}, {})
    return checkpoint["id"]


def place(checkpoint_id: str) -> dict:
    return {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": checkpoint_id}}


def test_a_collecting_saver_stores_nothing_itself():
    rows = MemoryRows()
    put(RowSaver(rows, collect=True))
    assert rows.checkpoints() == []


def test_a_direct_saver_stores_at_once():
    rows = MemoryRows()
    checkpoint_id = put(RowSaver(rows))
    assert [row.checkpoint_id for row in rows.checkpoints()] == [checkpoint_id]


def test_collected_rows_are_handed_out_once():
    saver = RowSaver(MemoryRows(), collect=True)
    checkpoint_id = put(saver)
    saver.put_writes(place(checkpoint_id), [("letter", "x")], "task")
    checkpoints, writes = saver.collected()
    assert ([row.checkpoint_id for row in checkpoints], [row.channel for row in writes]) == (
        [checkpoint_id],
        ["letter"],
    )
    assert saver.collected() == ([], [])


def test_collected_rows_that_were_stored_are_read_from_the_store():
    rows = MemoryRows()
    saver = RowSaver(rows, collect=True)
    checkpoint_id = put(saver)
    rows.save(*saver.collected())
    assert saver.get_tuple(place(checkpoint_id)).checkpoint["id"] == checkpoint_id


def test_a_collecting_saver_reads_its_own_rows_over_stored_ones():
    rows = MemoryRows()
    put(RowSaver(rows))
    saver = RowSaver(rows, collect=True)
    newer = put(saver)
    assert saver.get_tuple({"configurable": {"thread_id": "t"}}).checkpoint["id"] == newer
    assert len(list(saver.list({"configurable": {"thread_id": "t"}}))) == 2


def test_a_saver_holds_only_what_it_collected():
    rows = MemoryRows()
    old = put(RowSaver(rows))
    saver = RowSaver(rows, collect=True)
    new = put(saver)
    assert (saver.holds(place(old)), saver.holds(place(new))) == (False, True)


def test_a_thread_without_rows_waits_for_nothing():
    assert RowSaver(MemoryRows()).pending_interrupts("t") == []


def test_reading_a_checkpoint_takes_no_name_back_that_another_thread_gives(monkeypatch):
    saver, ended, made = RowSaver(MemoryRows()), threading.Event(), []
    read = place(put(saver))
    # As on a host whose clock has been set back: there names are told apart by counting alone.
    monkeypatch.setattr(ids, "_last_v6_timestamp", ids.uuid6().time + 36_000_000_000)

    def reading() -> None:
        while not ended.is_set():
            saver.get_tuple(read)

    readers = [threading.Thread(target=reading) for _ in range(2)]
    turns = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for reader in readers:
            reader.start()
        made += [ids.uuid6().time for _ in range(20_000)]
    finally:
        ended.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(turns)
    assert made == sorted(set(made))
