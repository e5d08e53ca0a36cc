"""The shared context: every value with its revision, and what it was before; to be read by members only."""

from __future__ import annotations

from functools import reduce

import pytest
from django.contrib.auth.models import User

from operators.models import ContextEntry, Membership, Project
from operators.services import context
from tests.pages.conftest import Browse

pytestmark = pytest.mark.django_db
PLACE = "/agents/context/"


@pytest.fixture
def entry(project: Project) -> ContextEntry:
    context.put("default", "leads", "dana/score", {"score": 61}, author="revenue_ops.lead_qualification")
    return context.put("default", "leads", "dana/score", {"score": 84, "note": "<b>"}, author="alice")


def text(browse: Browse, user: User, url: str = PLACE) -> str:
    answer = browse(user).get(url)
    assert answer.status_code == 200, url
    return answer.content.decode()


def test_a_value_is_shown_with_its_key_revision_and_author(entry: ContextEntry, vera: User, browse: Browse) -> None:
    page = text(browse, vera)
    for words in ("Leads", "dana/score", "Revision 2", "by alice", "&quot;score&quot;: 84", "&lt;b&gt;"):
        assert words in page
    assert "&quot;score&quot;: 61" not in page
    assert 'data-go="c" aria-current="page"' in page


def test_the_history_tells_what_the_value_was(entry: ContextEntry, vera: User, browse: Browse) -> None:
    page = text(browse, vera, f"{PLACE}{entry.pk}/")
    assert page.index("Revision 2") < page.index("Revision 1")
    assert "&quot;score&quot;: 61" in page
    assert "by revenue_ops.lead_qualification" in page


def test_a_deleted_value_is_gone_from_the_list_and_keeps_its_history(
    entry: ContextEntry, vera: User, browse: Browse
) -> None:
    context.delete("default", "leads", "dana/score", author="alice")
    assert "dana/score" not in text(browse, vera)
    page = text(browse, vera, f"{PLACE}{entry.pk}/")
    assert "This value was deleted" in page
    assert "&quot;score&quot;: 61" in page


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("ü" * 400, 1, "its key has 2,400 characters"),
        ("deep", reduce(lambda inner, _: [inner], range(150), 1), "levels"),
    ],
)
def test_a_value_that_nats_never_has_says_so(
    project: Project, vera: User, browse: Browse, key: str, value: object, reason: str
) -> None:
    entry = context.put("default", "leads", key, value, author="alice")
    assert reason in text(browse, vera, f"{PLACE}{entry.pk}/")


def test_a_value_that_nats_has_says_nothing_of_it(entry: ContextEntry, vera: User, browse: Browse) -> None:
    assert "NATS" not in text(browse, vera, f"{PLACE}{entry.pk}/")


def test_values_are_found_by_bucket_and_part_of_a_key(entry: ContextEntry, vera: User, browse: Browse) -> None:
    context.put("default", "companies", "stripe/intel", "known", author="company_intel.research")
    page = text(browse, vera, f"{PLACE}?bucket=leads")
    assert "dana/score" in page
    assert "stripe/intel" not in page
    assert "stripe/intel" in text(browse, vera, f"{PLACE}?key=RIPE")
    assert "No value fits" in text(browse, vera, f"{PLACE}?key=nothing")
    assert "No value fits" in text(browse, vera, f"{PLACE}?bucket=market")
    assert browse(vera).get(f"{PLACE}?bucket=secrets").status_code == 404


def test_an_empty_context_says_how_it_is_filled(project: Project, vera: User, browse: Browse) -> None:
    page = text(browse, vera)
    assert "Nothing is shared yet" in page
    assert "ctx.context.put" in page


def test_nobody_can_change_a_value_here(entry: ContextEntry, alice: User, browse: Browse) -> None:
    assert browse(alice).post(PLACE, {"key": "x"}).status_code == 405
    assert browse(alice).post(f"{PLACE}{entry.pk}/", {"value": "x"}).status_code == 405
    assert 'method="post"' not in text(browse, alice).split("<main")[1]


def test_charlie_sees_nothing(entry: ContextEntry, charlie: User, browse: Browse) -> None:
    page = text(browse, charlie)
    assert "dana" not in page
    assert "Nothing is shared yet" in page
    assert browse(charlie).get(f"{PLACE}{entry.pk}/").status_code == 404
    assert browse(charlie).get(f"{PLACE}?project=default").status_code == 404


def test_a_member_of_nothing_sees_nothing(entry: ContextEntry, browse: Browse) -> None:
    assert "dana" not in text(browse, User.objects.create_user("nobody"))


def test_somebody_of_two_projects_chooses_whose_context(
    entry: ContextEntry, other_project: Project, vera: User, browse: Browse
) -> None:
    Membership.objects.create(project=other_project, user=vera, role=Membership.Role.VIEWER)
    context.put("other", "leads", "carl/score", 1, author="x")
    assert "carl/score" not in text(browse, vera)
    page = text(browse, vera, f"{PLACE}?project=other")
    assert "carl/score" in page
    assert "dana/score" not in page


@pytest.mark.parametrize("number", ["99", str(2**63), "9" * 40])
def test_an_entry_that_is_not_there_is_not_found(number: str, entry: ContextEntry, vera: User, browse: Browse) -> None:
    assert browse(vera).get(f"{PLACE}{number}/").status_code == 404


@pytest.mark.parametrize("path", [PLACE, f"{PLACE}{{entry}}/"])
def test_the_pages_ask_the_database_a_few_times(
    path: str, entry: ContextEntry, vera: User, browse: Browse, django_assert_max_num_queries
) -> None:
    for number in range(60):
        context.put("default", "leads", f"lead-{number}", number, author="alice")
        context.put("default", "leads", "dana/score", number, author="alice")
    client = browse(vera)
    with django_assert_max_num_queries(8):
        assert client.get(path.format(entry=entry.pk)).status_code == 200
    assert "lead-59" not in text(browse, vera)
    assert "lead-59" in text(browse, vera, f"{PLACE}?page=2")
