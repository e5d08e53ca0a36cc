"""The hub and the sockets: who may watch, what a page is sent, and that no number is missed or told twice."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.db.models import F
from django.utils import timezone

from agents_ui import sockets
from agents_ui.live import CATCH_UP, EARLY_WORDS, PORTION, Hub, hub
from agents_ui.sending import LONGEST
from openvibe.bus import Handler, Unsubscribe
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import envelope, subjects
from operators.link import link
from operators.models import Event, Membership, Project, Run
from tests.pages.servers import Server

pytestmark = pytest.mark.django_db(transaction=True)

SEQ = re.compile(r'<template data-seq="(\d+)">')


@pytest.fixture
async def bus() -> MemoryBus:
    """A bus on the loop of the test, in the place of the process's own."""
    made = MemoryBus()
    await made.connect()
    link.use(made)
    return made


class Watching:
    """One browser's socket."""

    def __init__(self, run: Run, user: Any, after: int) -> None:
        page = sockets.RunPage.as_asgi()
        self._socket = WebsocketCommunicator(page, f"/ws/agents/{run.pk}/?after={after}")
        self._socket.scope["user"] = user
        self._socket.scope["url_route"] = {"kwargs": {"run_id": run.pk}}
        self.frames = ""
        self.longest = 0

    async def open(self) -> None:
        connected, _ = await self._socket.connect()
        assert connected

    async def hears(self, text: str) -> str:
        """Read frames until this text has come; return all that came so far."""
        while text not in self.frames:
            frame = await self._socket.receive_from(timeout=10)
            self.frames += frame
            self.longest = max(self.longest, len(frame))
        return self.frames

    async def closed_with(self) -> int:
        while True:
            message = await self._socket.receive_output(timeout=10)
            if message["type"] == "websocket.close":
                code: int = message["code"]
                return code

    async def close(self) -> None:
        await self._socket.disconnect()


Watch = Callable[..., Awaitable[Watching]]


@pytest.fixture
async def watch(bus: MemoryBus):
    """Open sockets that are closed with the test."""
    opened: list[Watching] = []

    async def watching(run: Run, user: Any, *, after: int = 0) -> Watching:
        browser = Watching(run, user, after)
        await browser.open()
        opened.append(browser)
        return browser

    yield watching
    for browser in opened:
        await browser.close()
    await asyncio.sleep(0)


async def test_a_page_is_sent_what_it_missed_and_then_its_state(watch: Watch, waiting: Run, alice: User) -> None:
    browser = await watch(waiting, alice, after=3)
    await waiting.arefresh_from_db()
    frames = await browser.hears(f'data-seq="{waiting.last_seq}"></template>')
    assert SEQ.findall(frames) == [str(waiting.last_seq)]
    assert "Generate sequence" in frames
    await browser.hears("Live")


async def test_charlie_and_strangers_and_absent_runs_are_closed_alike(
    watch: Watch, waiting: Run, charlie: User
) -> None:
    for user in (charlie, AnonymousUser()):
        assert await (await watch(waiting, user)).closed_with() == sockets.NOT_FOUND
    assert await (await watch(Run(id="run_absent"), charlie)).closed_with() == sockets.NOT_FOUND


@pytest.mark.parametrize("path", ["/ws/nope/", "/ws/agents/a/b/", "/"])
async def test_a_socket_of_no_page_is_closed_as_one_that_may_not_be_watched(path: str) -> None:
    socket = WebsocketCommunicator(URLRouter(sockets.websocket_urlpatterns), path)
    socket.scope["user"] = AnonymousUser()
    connected, _ = await socket.connect()
    assert connected
    closed = await socket.receive_output(timeout=10)
    assert (closed["type"], closed["code"]) == ("websocket.close", sockets.NOT_FOUND)


async def test_news_is_shown_in_order_and_a_repeated_number_once(
    watch: Watch, bus: MemoryBus, waiting: Run, alice: User
) -> None:
    last = await _last(waiting)
    browser = await watch(waiting, alice, after=last)
    await browser.hears("Live")
    first, second = await _say(waiting, "first word"), await _say(waiting, "second word")
    await _announce(bus, waiting, [first])
    await _announce(bus, waiting, [first, second])
    frames = await browser.hears("second word")
    assert frames.count("first word") == 1
    assert frames.index("first word") < frames.index("second word")


async def test_a_hole_is_read_from_the_database(watch: Watch, bus: MemoryBus, waiting: Run, alice: User) -> None:
    last = await _last(waiting)
    browser = await watch(waiting, alice, after=last)
    await browser.hears("Live")
    await _say(waiting, "lost on the way")
    await _announce(bus, waiting, [await _say(waiting, "arrived")])
    frames = await browser.hears("arrived")
    assert frames.index("lost on the way") < frames.index("arrived")


async def test_the_database_is_read_while_the_bus_is_away(
    watch: Watch, bus: MemoryBus, waiting: Run, alice: User
) -> None:
    browser = await watch(waiting, alice, after=await _last(waiting))
    await browser.hears("Live")
    bus.connected = False
    await browser.hears("Offline")
    await _say(waiting, "said meanwhile")
    await browser.hears("said meanwhile")
    bus.connected = True
    assert (await browser.hears('data-state="live"')).count("said meanwhile") == 1


async def test_an_announcement_that_cannot_be_read_costs_no_page_an_event(
    watch: Watch, bus: MemoryBus, waiting: Run, alice: User
) -> None:
    browser = await watch(waiting, alice, after=await _last(waiting))
    await browser.hears("Live")
    await _say(waiting, "told by nobody")
    await _announce(bus, waiting, ["no event"])  # type: ignore[list-item]
    await browser.hears("told by nobody")


async def test_a_page_that_leaves_while_another_comes_takes_nothing_along(
    watch: Watch, bus: MemoryBus, waiting: Run, alice: User
) -> None:
    hub, leaving, coming = Hub(), Server(), Server()
    leave = hub.join("default", subjects.thread(waiting.pk), leaving.socket(after=await _last(waiting)))
    await leaving.takes("Live")
    leave_too = hub.join("default", subjects.thread(waiting.pk), coming.socket(after=1))
    # Its history is being read in a thread by now.
    for _ in range(5):
        await asyncio.sleep(0)
    leave()
    await coming.takes("Live")
    await _announce(bus, waiting, [await _say(waiting, "after the other left")])
    await coming.takes("after the other left")
    leave_too()


async def test_nobody_listens_any_more_when_the_last_page_has_left(waiting: Run) -> None:
    bus = SlowBus()
    await bus.connect()
    link.use(bus)
    leave = Hub().join("default", subjects.thread(waiting.pk), Server().socket(after=0))
    await asyncio.wait_for(bus.subscribing.wait(), 10)
    leave()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not bus._handlers:
            break
    assert bus._handlers == []


class SlowBus(MemoryBus):
    """A server that takes its time to say that it has taken a subscription."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribing = asyncio.Event()

    async def subscribe(self, pattern: str, handler: Handler) -> Unsubscribe:
        unsubscribe = await super().subscribe(pattern, handler)
        self.subscribing.set()
        await asyncio.sleep(0.02)
        return unsubscribe


async def test_a_bus_that_closed_for_good_is_replaced(watch: Watch, bus: MemoryBus, waiting: Run, alice: User) -> None:
    browser = await watch(waiting, alice, after=await _last(waiting))
    await browser.hears("Live")
    await bus.close()
    await browser.hears("Offline")
    another = MemoryBus()
    await another.connect()
    link.use(another)
    browser.frames = ""
    await browser.hears("Live")
    await _announce(another, waiting, [await _say(waiting, "over the new bus")])
    await browser.hears("over the new bus")


async def test_a_page_on_which_nothing_happens_hears_again_and_again_that_it_is_heard(
    watch: Watch, waiting: Run, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "RIGHTS_SECONDS", 0.05)
    browser = await watch(waiting, alice, after=await _last(waiting))
    await browser.hears("Live")
    for _ in range(3):
        browser.frames = ""
        assert await browser.hears(sockets.BEAT) == sockets.BEAT


async def test_a_user_who_sees_more_comes_back_and_one_who_left_does_not(
    watch: Watch, waiting: Run, vera: User, other_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "RIGHTS_SECONDS", 0.05)
    runs = WebsocketCommunicator(sockets.RunsPage.as_asgi(), "/ws/agents/")
    runs.scope["user"] = vera
    await runs.connect()
    browser = await watch(waiting, vera)
    await Membership.objects.acreate(project=other_project, user=vera)
    while (message := await runs.receive_output(timeout=10))["type"] != "websocket.close":
        pass
    assert message["code"] == sockets.CHANGED
    await Membership.objects.filter(user=vera).adelete()
    assert await browser.closed_with() == sockets.NOT_FOUND
    await runs.disconnect()


async def test_one_subscription_serves_every_socket_of_a_run(
    watch: Watch, bus: MemoryBus, waiting: Run, alice: User, bob: User
) -> None:
    last = await _last(waiting)
    browsers = [await watch(waiting, user, after=last) for user in (alice, bob, alice)]
    for browser in browsers:
        await browser.hears("Live")
    heard = [pattern for pattern, _ in bus._handlers if waiting.pk in pattern]
    assert len(heard) == 2
    await _announce(bus, waiting, [await _say(waiting, "for everybody")])
    for browser in browsers:
        await browser.hears("for everybody")


async def test_words_of_a_step_that_never_starts_do_not_heap_up(
    watch: Watch, bus: MemoryBus, waiting: Run, alice: User
) -> None:
    browser = await watch(waiting, alice, after=await _last(waiting))
    await browser.hears("Live")
    place = subjects.chunk(waiting.project_id, subjects.thread(waiting.id), "stranger")
    for number in range(EARLY_WORDS + 50):
        await bus.publish(place, envelope.dumps({"step_id": "nowhere", "content": f"word {number} "}))
    found: Any = hub._watches[waiting.project_id, subjects.thread(waiting.pk)]
    words = found._words["nowhere"]
    assert (len(words), words[-1]) == (EARLY_WORDS, f"word {EARLY_WORDS + 49} ")


async def test_words_of_a_step_wait_until_its_start_is_shown(
    watch: Watch, bus: MemoryBus, waiting: Run, alice: User
) -> None:
    browser = await watch(waiting, alice, after=await _last(waiting))
    await browser.hears("Live")
    body = {"step_id": "step-early", "content": "words before the start"}
    await bus.publish(subjects.chunk("default", subjects.thread(waiting.pk), "revenue_ops"), envelope.dumps(body))
    await _announce(bus, waiting, [await _begin(waiting, "step-early")])
    frames = await browser.hears("words before the start")
    assert frames.index("step-step-early") < frames.index("words before the start")


async def test_a_page_far_behind_is_told_to_load_anew(watch: Watch, waiting: Run, alice: User) -> None:
    await _talk(waiting, CATCH_UP + 1)
    browser = await watch(waiting, alice, after=0)
    await browser.hears('data-dispatch="reload"')


async def test_what_is_too_much_for_one_frame_goes_out_as_several(watch: Watch, waiting: Run, alice: User) -> None:
    last = await _last(waiting)
    await _talk(waiting, 6, padding="x" * PORTION)
    browser = await watch(waiting, alice, after=last)
    await browser.hears(f'data-seq="{last + 6}"></template>')
    assert SEQ.findall(browser.frames) == [str(number) for number in range(last + 1, last + 7)]
    assert browser.longest < 2 * LONGEST


async def _last(run: Run) -> int:
    await run.arefresh_from_db()
    return run.last_seq


async def _say(run: Run, content: str) -> dict[str, Any]:
    return await _record(run, kind="agent.message", actor="scout", data={"content": content})


async def _begin(run: Run, step_id: str) -> dict[str, Any]:
    return await _record(run, kind="step.started", node="format", step_id=step_id)


@sync_to_async
def _record(run: Run, **values: Any) -> dict[str, Any]:
    """Write an event into the run's thread without announcing it; return it as it travels."""
    changed = Run.objects.filter(pk=run.pk).change("last_seq", last_seq=F("last_seq") + 1)
    assert changed is not None
    event = Event.objects.create(
        project_id=run.project_id, channel=subjects.thread(run.pk), seq=changed[0], run_id=run.pk,
        created_at=timezone.now(), **values,
    )  # fmt: skip
    return {**event.wire(), "timestamp": event.created_at.isoformat()}


@sync_to_async
def _talk(run: Run, count: int, *, padding: str = "") -> None:
    changed = Run.objects.filter(pk=run.pk).change("last_seq", last_seq=F("last_seq") + count)
    assert changed is not None
    Event.objects.bulk_create(
        Event(
            project_id=run.project_id, channel=subjects.thread(run.pk), seq=changed[0] - number, run_id=run.pk,
            kind="agent.message", created_at=timezone.now(), data={"content": f"talk{padding}"},
        )
        for number in range(count)
    )  # fmt: skip


async def _announce(bus: MemoryBus, run: Run, events: list[dict[str, Any]]) -> None:
    subject = subjects.recorded(run.project_id, subjects.thread(run.pk))
    await bus.publish(subject, envelope.dumps({"payload": {"events": events}}))


async def test_a_list_of_runs_looks_again_when_a_run_falls_asleep(bus: MemoryBus, alice: User, charlie: User) -> None:
    pages = []
    for user in (alice, charlie):
        page = WebsocketCommunicator(sockets.RunsPage.as_asgi(), "/ws/agents/")
        page.scope["user"] = user
        assert (await page.connect())[0]
        assert "Live" in await page.receive_from(timeout=10)
        pages.append(page)
    await bus.publish(subjects.stirred("default"), b"{}")
    assert 'data-dispatch="runs-changed"' in await pages[0].receive_from(timeout=10)
    assert await pages[1].receive_nothing()
    for page in pages:
        await page.disconnect()
