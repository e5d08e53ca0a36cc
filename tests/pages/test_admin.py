"""The administration: what may be changed, and what is only read."""

from __future__ import annotations

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.test import Client

from operators.models import Node, Operator, Run, Wait
from tests.pages.conftest import Browse

READ_ONLY = ["run", "event", "wait", "deadletter", "process", "apitoken"]


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
