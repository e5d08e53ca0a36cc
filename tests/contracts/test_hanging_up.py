"""A call to a model ends at once when its line is hung up, whether the model talks or is silent, and leaks nothing."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from openvibe import llm
from openvibe.line import Line
from openvibe.llm import LLMResponse
from tests.acceptance.site import until
from tests.contracts.vendors import VENDORS, Reply, Vendor, VendorServer, running


class HungUp(Exception):
    """Somebody has hung up."""


@pytest.fixture(params=VENDORS, ids=[vendor.name for vendor in VENDORS])
def vendor(request) -> Vendor:
    return request.param


@pytest.fixture
def server(vendor) -> Iterator[VendorServer]:
    with running(Reply(vendor.answer("Hello"))) as server:
        yield server


@pytest.fixture
def provider(vendor, server) -> Iterator[Any]:
    provider: Any = vendor.provider(server.url, timeout=60)
    yield provider
    provider.close()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """One thread, which uses one connection as long as it can."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def ask(provider: Any, vendor: Any, line: Line | None = None, **options: Any) -> str:
    with (line or Line()).talking():
        return provider.complete(system="", user="Say hello!", model=vendor.model, **options).content


@pytest.mark.parametrize("words", [(), ("Hel",)], ids=["from the start", "in mid-stream"])
@pytest.mark.parametrize("earlier", [0, 1], ids=["on a new connection", "on a connection in use before"])
def test_a_silent_call_ends_when_its_line_is_hung_up(vendor, server, provider, thread, words, earlier):
    for _ in range(earlier):
        thread.submit(ask, provider, vendor).result(30)
    server.replies = [Reply(vendor.unfinished(*words) if words else [], end="hold")]
    line, heard = Line(), []
    call = thread.submit(ask, provider, vendor, line, on_words=heard.append)
    until(lambda: len(server.requests) > earlier and heard == list(words), "the server has been asked and is silent")

    assert line.hang_up(HungUp())

    assert isinstance(call.exception(30), HungUp)
    assert server.hung_up.wait(30)
    server.replies = [Reply(vendor.answer("Hello again"))]
    assert [thread.submit(ask, provider, vendor).result(30) for _ in range(3)] == ["Hello again"] * 3
    assert server.connections == 2


def test_only_the_call_whose_line_was_hung_up_ends(vendor, server, provider, threads):
    server.replies = [Reply(end="hold")]
    lines = [Line(), Line(), Line()]
    calls = [threads.submit(ask, provider, vendor, line) for line in lines]
    until(lambda: len(server.requests) == len(lines), "the server has been asked")

    lines[1].hang_up(HungUp())

    assert isinstance(calls[1].exception(30), HungUp)
    assert [call.done() for call in calls] == [False, True, False]
    for line in lines:
        line.hang_up(HungUp())
    assert all(isinstance(call.exception(30), HungUp) for call in calls)


def test_calls_that_were_hung_up_leave_no_connections_behind(vendor, server, provider, thread):
    before = _sockets()
    server.replies = [Reply(end="hold")]
    for number in range(1, 9):
        line = Line()
        call: Future[str] = thread.submit(ask, provider, vendor, line)
        until(lambda number=number: len(server.requests) == number, "the server has been asked")
        line.hang_up(HungUp())
        assert isinstance(call.exception(30), HungUp)
    until(lambda: _sockets() == before, "both ends of every connection are closed")


def _sockets() -> int:
    """Return how many sockets this process has open, the server's among them."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return found


def test_a_line_that_was_hung_up_takes_no_further_call(vendor, server, provider):
    line = Line()
    assert not line.hang_up(HungUp("first"))
    line.hang_up(HungUp("second"))
    with pytest.raises(HungUp, match="first"):
        ask(provider, vendor, line)
    assert server.requests == []


class Quiet:
    """A provider of one's own that is silent until it is cancelled."""

    name = "quiet"
    model = "quiet-1"

    def __init__(self) -> None:
        self.asked, self.cancelled = threading.Event(), threading.Event()

    async def _wait(self) -> None:
        self.asked.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.cancelled.set()


class Whole(Quiet):
    async def complete(self, *, system, user, model, max_tokens) -> LLMResponse:
        await self._wait()
        raise AssertionError("nobody hung up")


class Streaming(Quiet):
    async def complete(self, *, system, user, model, max_tokens, on_words) -> LLMResponse:
        on_words("Hel")
        await self._wait()
        raise AssertionError("nobody hung up")


@pytest.mark.parametrize("kind", [Whole, Streaming])
def test_an_awaited_provider_is_cancelled_when_its_line_is_hung_up(kind: Callable[[], Quiet], threads):
    house, line = kind(), Line()
    call = threads.submit(ask, llm.adapted(house), house, line, on_words=lambda text: None)
    assert house.asked.wait(30)
    line.hang_up(HungUp())
    assert isinstance(call.exception(30), HungUp)
    assert house.cancelled.wait(30)
