"""The servers that share a bus: what each offers, how busy it is, and who has gone silent; for members only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from operators.models import Operator, Project, Server
from operators.models.server import BEAT_SECONDS, MOST_MISSED
from tests.pages.conftest import Browse

pytestmark = pytest.mark.django_db
PLACE = "/agents/servers/"


def server(name: str, *, missed: float = 0, **fields: Any) -> Server:
    heard = timezone.now() - timedelta(seconds=missed * BEAT_SECONDS)
    defaults = {"operators": ["desk"], "capabilities": {"desk": ["rating"]}, "load": 3, "version": "1.2.0"}
    return Server.objects.create(
        project_id="default", name=name, beat_at=heard, heard_at=heard, **{**defaults, **fields}
    )


def text(browse: Browse, user: User) -> str:
    answer = browse(user).get(PLACE)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_a_server_is_shown_with_what_it_serves_answers_and_plays(project: Project, vera: User, browse: Browse) -> None:
    server("north")
    page = text(browse, vera)
    for words in (
        '<h2 class="wrap">north</h2>',
        "Desk",
        '<code class="wrap">rating</code>',
        "3 runs",
        "1.2.0",
        "Alive",
    ):
        assert words in page
    assert "Silent" not in page


def test_one_that_missed_three_heartbeats_is_marked_and_told_of(project: Project, vera: User, browse: Browse) -> None:
    server("north")
    server("south", missed=MOST_MISSED + 0.5)
    page = text(browse, vera)
    assert "1 server has missed 3 heartbeats" in page
    assert page.index("server-fresh") < page.index("server-stale")
    assert "unknown; 3 at last" in page


def test_one_that_missed_two_is_still_alive(project: Project, vera: User, browse: Browse) -> None:
    server("north", missed=MOST_MISSED - 0.5)
    assert "Silent" not in text(browse, vera)


def test_operators_that_are_known_here_lead_to_their_pages(
    registered: dict[str, Operator], vera: User, browse: Browse
) -> None:
    server("north", operators=["company_intel", "desk"])
    page = text(browse, vera)
    assert '<a href="/agents/operators/company_intel/">Company Intelligence</a>' in page
    assert "<b>Desk</b>" in page


def test_what_others_say_of_themselves_is_no_markup(project: Project, vera: User, browse: Browse) -> None:
    server("north", operators=["<b>"], capabilities={"<b>": ["<i>"]}, version="<u>")
    page = text(browse, vera)
    assert "<u>" not in page
    assert "<i>" not in page


def test_an_empty_registry_says_how_it_is_filled(project: Project, vera: User, browse: Browse) -> None:
    assert "No server has said that it is there" in text(browse, vera)


def test_the_page_looks_again_by_itself_and_is_found_beside_the_operators(
    project: Project, vera: User, browse: Browse
) -> None:
    server("north")
    assert 'hx-get="/agents/servers/" hx-trigger="every 5s"' in text(browse, vera)
    assert f'href="{PLACE}"' in browse(vera).get("/agents/operators/").content.decode()


def test_charlie_sees_no_server_of_a_bus_that_is_not_his(charlie: User, project: Project, browse: Browse) -> None:
    server("north")
    page = text(browse, charlie)
    assert "north" not in page
    assert "No server has said that it is there" in page


def test_strangers_are_asked_to_sign_in_and_nobody_posts(project: Project, vera: User, browse: Browse, client) -> None:
    assert client.get(PLACE).status_code == 302
    assert browse(vera).post(PLACE).status_code == 405


def test_many_servers_take_no_more_queries_than_one(
    project: Project, vera: User, browse: Browse, django_assert_max_num_queries
) -> None:
    for number in range(30):
        server(f"server-{number}")
    visitor = browse(vera)
    with django_assert_max_num_queries(8):
        visitor.get(PLACE)
