from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext

from openvibe import llm_node, node, operator, workflow
from openvibe.registry import define
from operators import definitions
from operators.models import Node, Operator, Workflow
from operators.services import registration
from tests.domain.lab import played, started


@operator(id="lab", name="Laboratory", owner="Science", description="New words")
class ChangedLab:
    number: int = 0

    @workflow(id="four", name="Two by two")
    class Four:
        @node
        def one(self, state):
            return None

        @llm_node(model="opus")
        def five(self, state):
            return {"system": "s", "user": "u", "output_key": "number"}


def test_what_ships_is_registered_with_inputs_and_samples(registered):
    assert set(registered) >= {"company_intel", "revenue_ops"}
    research = registered["company_intel"].workflows.get()
    assert (research.slug, research.trigger_id, research.trigger) == ("research", "query", "on_demand")
    assert research.sample_input == {"company_name": "Stripe"}
    assert research.input_schema["required"] == ["company_name"]
    assert registered["revenue_ops"].workflows.get(slug="engagement").gates == ["review_sequence"]


def test_registering_again_changes_nothing(registered, project):
    before = [list(model.objects.order_by("pk").values()) for model in (Workflow, Node)]

    registration.register_all(project)

    assert [list(model.objects.order_by("pk").values()) for model in (Workflow, Node)] == before


def test_many_workflows_take_no_more_statements_than_one(registered, project):
    def statements(operator_id: str) -> int:
        with CaptureQueriesContext(connection) as sent:
            registration.register(project, definitions.registry.operator(operator_id))
        return len(sent)

    assert registered["revenue_ops"].workflows.count() > registered["company_intel"].workflows.count() == 1
    assert statements("revenue_ops") == statements("company_intel")


def test_what_an_administrator_changed_stays_changed(registered, project):
    Operator.objects.filter(slug="company_intel").update(enabled=False, description="Ours")
    Node.objects.filter(workflow__slug="research", slug="research").update(model="opus")

    registration.register_all(project)

    kept = Operator.objects.get(slug="company_intel")
    assert (kept.enabled, kept.description) == (False, "Ours")
    assert Node.objects.get(workflow__slug="research", slug="research").model == "opus"


def test_what_the_code_changed_follows_the_code(lab, project):
    version = lab.workflows.get(slug="four").version

    registration.register(project, define(ChangedLab))

    lab.refresh_from_db()
    four = lab.workflows.get(slug="four")
    assert (lab.name, lab.owner, four.name) == ("Laboratory", "Science", "Two by two")
    assert four.version != version
    assert [(item.slug, item.default_model) for item in four.nodes.all()] == [("one", ""), ("five", "opus")]


def test_a_workflow_that_is_gone_is_retired_and_its_runs_are_kept(lab, project):
    run = played(started(lab, "meddled"))

    registration.register(project, define(ChangedLab))

    assert lab.workflows.get(slug="meddled").retired
    assert not lab.workflows.get(slug="four").retired
    run.refresh_from_db()
    assert run.status == "completed"


def test_a_workflow_that_comes_back_is_no_longer_retired(lab, project):
    lab.workflows.update(retired=True)

    registration.register(project, define(ChangedLab))

    assert not lab.workflows.get(slug="four").retired
