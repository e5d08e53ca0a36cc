"""The administration: what may be changed, and what is only read."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from operators.models import ContextEntry, Effect, Emission, InboxItem, Node, Operator, Project, Run, Wait
from tests.pages.conftest import Browse, begun, delivered

READ_ONLY = ["run", "event", "wait", "deadletter", "process", "apitoken"]
READ_ONLY += ["effect", "emission", "inboxitem", "contextentry"]


@pytest.fixture
def administrator(browse: Browse) -> Client:
    return browse(User.objects.create_superuser("root"))


@pytest.mark.parametrize("name", [*READ_ONLY, "operator", "workflow", "project"])
def test_every_list_opens(administrator: Client, waiting: Run, name: str) -> None:
    assert administrator.get(f"/admin/operators/{name}/").status_code == 200


def test_a_run_with_its_waits_and_an_event_and_a_wait_are_read(administrator: Client, waiting: Run) -> None:
    event = waiting.events.earliest("seq")
    gate = Wait.objects.get(run=waiting)
    for model, key in (("run", waiting.pk), ("event", event.pk), ("wait", gate.pk)):
        page = administrator.get(f"/admin/operators/{model}/{quote(key)}/change/")
        assert page.status_code == 200
        assert 'name="_save"' not in page.content.decode()


def test_effects_events_inbox_and_context_are_listed_and_read(
    administrator: Client, village: dict[str, Operator]
) -> None:
    bought = begun(village["baker"], "buy", flour=1)
    baked = begun(village["baker"], "bake", flour=50)
    delivered()
    now = timezone.now()
    item = InboxItem.objects.create(
        project_id="default", type="work.result", correlation_id="c-7", status="skipped", reason="No wait fits",
        received_at=now, changed_at=now,
    )  # fmt: skip
    rows: list[tuple[str, Any, tuple[str, ...]]] = [
        ("effect", Effect.objects.get(), ("flour", bought.id, "Confirmed")),
        ("emission", Emission.objects.get(), ("baker.bread_ready", baked.id)),
        ("inboxitem", item, ("c-7", "No wait fits")),
        ("contextentry", ContextEntry.objects.get(), ("village/flour", "baker.bake")),
        ("run", Run.objects.filter(parent=baked).first(), (baked.id, "event:emission_")),
    ]
    for model, row, words in rows:
        listed = administrator.get(f"/admin/operators/{model}/").content.decode()
        assert [word for word in words if word not in listed] == []
        page = administrator.get(f"/admin/operators/{model}/{quote(row.pk)}/change/")
        assert page.status_code == 200
        assert 'name="_save"' not in page.content.decode()


@pytest.mark.parametrize("name", ["run", "wait", "effect", "emission", "inboxitem", "contextentry"])
def test_a_list_asks_the_database_a_few_times(
    administrator: Client, village: dict[str, Operator], name: str, django_assert_max_num_queries
) -> None:
    for _ in range(4):
        begun(village["baker"], "buy", flour=1)
        begun(village["baker"], "bake", flour=50)
        begun(village["baker"], "judged", loaves=1)
    delivered()
    with django_assert_max_num_queries(15):
        assert administrator.get(f"/admin/operators/{name}/").status_code == 200


@pytest.mark.parametrize("name", READ_ONLY)
def test_what_the_product_writes_cannot_be_added_by_hand(administrator: Client, name: str) -> None:
    assert administrator.get(f"/admin/operators/{name}/add/").status_code == 403


def test_an_administrator_disables_an_operator_and_changes_its_description(
    administrator: Client, registered: dict[str, Operator]
) -> None:
    operator = registered["revenue_ops"]
    address = f"/admin/operators/operator/{operator.pk}/change/"
    assert administrator.get(address).status_code == 200
    form = {"description": "Changed by hand", "_save": "Save"}
    form |= {"workflows-TOTAL_FORMS": "0", "workflows-INITIAL_FORMS": "0"}
    assert administrator.post(address, form).status_code == 302
    operator.refresh_from_db()
    assert (operator.enabled, operator.description) == (False, "Changed by hand")


def test_an_administrator_chooses_the_model_of_one_node(administrator: Client, registered: dict[str, Operator]) -> None:
    workflow = registered["company_intel"].workflows.get(slug="research")
    nodes = list(workflow.nodes.order_by("position"))
    form = {"_save": "Save", "nodes-TOTAL_FORMS": str(len(nodes)), "nodes-INITIAL_FORMS": str(len(nodes))}
    for number, node in enumerate(nodes):
        form |= {f"nodes-{number}-id": str(node.pk), f"nodes-{number}-workflow": str(workflow.pk)}
        form[f"nodes-{number}-model"] = "opus" if node.slug == "analyze" else ""
    answer = administrator.post(f"/admin/operators/workflow/{workflow.pk}/change/", form)
    assert answer.status_code == 302, answer.content.decode()
    chosen = dict(Node.objects.filter(workflow=workflow).values_list("slug", "model"))
    assert chosen == {"research": "", "analyze": "opus", "decide": "", "report": ""}


def test_somebody_who_is_no_administrator_is_sent_away(browse: Browse, bob: User) -> None:
    assert browse(bob).get("/admin/operators/run/").status_code == 302


def test_what_user_interfaces_may_do_is_named_by_known_words(administrator: Client, project: Project) -> None:
    form = {
        "id": project.pk,
        "name": project.name,
        "memberships-TOTAL_FORMS": "0",
        "memberships-INITIAL_FORMS": "0",
    }
    place = f"/admin/operators/project/{project.pk}/change/"
    refused = administrator.post(place, {**form, "ui_allowed": "start shout"})
    assert "none of: start cancel retry approve answer" in refused.content.decode()
    assert administrator.post(place, {**form, "ui_allowed": "start, cancel start"}).status_code == 302
    project.refresh_from_db()
    assert project.ui_allowed == "start cancel"
