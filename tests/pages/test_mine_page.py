"""The page of what is told to one person alone."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User

from agents_ui import sockets
from openvibe.bus.memory import MemoryBus
from openvibe.protocol import envelope, subjects
from operators.link import link
from operators.models import Event, Project, Wait
from operators.services import personal
from tests.api.test_api_personal import tell

pytestmark = pytest.mark.django_db(transaction=True)
PAGE = "/agents/mine/"


def test_a_person_sees_the_gates_that_are_open_to_him(alice, bob, gate: Wait, browse, django_assert_max_num_queries):
    personal.repeated(list(Event.objects.filter(channel=f"t_{gate.run_id}", kind="gate.opened")))
    reader = browse(bob)
    with django_assert_max_num_queries(16):
        page = reader.get(PAGE).content.decode()
    assert f'href="/agents/{gate.run_id}/"' in page
    assert 'class="moment' in page


def test_nobody_sees_what_is_told_to_another_one(alice, bob, charlie, project: Project, browse) -> None:
    tell(project, "alice", "For Alice alone")
    assert "For Alice alone" in browse(alice).get(PAGE).content.decode()
    assert "For Alice alone" not in browse(bob).get(PAGE).content.decode()
    assert "For Alice alone" not in browse(bob).get("/agents/general/").content.decode()
    assert browse(charlie).get(f"{PAGE}?project=default").status_code == 404


def test_every_page_leads_to_what_is_told_to_its_reader(bob, browse) -> None:
    assert f'href="{PAGE}"' in browse(bob).get("/agents/").content.decode()


@pytest.mark.parametrize("page", [PAGE, "/agents/general/"])
def test_whoever_belongs_to_no_project_is_told_so_and_nothing_about_posting(page, settings, browse) -> None:
    settings.BUS = "nats"
    shown = browse(User.objects.create_user("newcomer")).get(page).content.decode()
    assert "You belong to no project yet" in shown
    assert "cg.v1." not in shown


def test_a_stranger_is_sent_to_sign_in(client) -> None:
    assert client.get(PAGE).headers["Location"].startswith("/signin/")


async def test_the_page_hears_its_own_reader_and_nobody_else(alice: User, bob: User, project: Project) -> None:
    bus = MemoryBus()
    await bus.connect()
    link.use(bus)
    pages = {}
    for user in (alice, bob):
        pages[user] = WebsocketCommunicator(sockets.MinePage.as_asgi(), "/ws/agents/mine/?after=0")
        pages[user].scope["user"] = user
        assert (await pages[user].connect())[0]
    await sync_to_async(tell)(project, "alice", "For Alice alone")
    event = await Event.objects.aget(channel="u_alice")
    await bus.publish(subjects.recorded("default", "u_alice"), envelope.dumps({"payload": {"events": [event.wire()]}}))
    frames = ""
    while "For Alice alone" not in frames:
        frames += await pages[alice].receive_from(timeout=10)
    await pages[bob].receive_from(timeout=10)
    while not await pages[bob].receive_nothing(timeout=0.5):
        assert "For Alice alone" not in await pages[bob].receive_from(timeout=1)
    for page in pages.values():
        await page.disconnect()


async def test_a_strangers_socket_is_closed(project: Project) -> None:
    page = WebsocketCommunicator(sockets.MinePage.as_asgi(), "/ws/agents/mine/")
    page.scope["user"] = AnonymousUser()
    await page.connect()
    assert (await page.receive_output(timeout=10))["code"] == sockets.NOT_FOUND
