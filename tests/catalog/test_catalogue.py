"""The catalogue as a whole: its counts, its samples, its prompts, and who hears whom."""

import ast
import inspect
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from openvibe.outcomes import Completed, Emission, Paused
from operators.catalog import OPERATORS, prompts
from tests.catalog.stage import DEFINITIONS, WORKFLOWS, Stage, hearers

NODES = {place: [node.id for node in workflow.spec.nodes] for place, workflow in WORKFLOWS.items()}
#: Which workflows an event may start; a payload is needed only where a subscription filters.
EMITTED = {
    ("company_intel", "research"): [("company_intel.research_complete", {})],
    ("revenue_ops", "lead_qualification"): [("revenue_ops.lead_qualified", {}), ("revenue_ops.lead_nurture", {})],
    ("revenue_ops", "nurture_sequence"): [("revenue_ops.lead_qualified", {})],
    ("revenue_ops", "deal_support"): [("revenue_ops.deal_at_risk", {})],
    ("content_engine", "content_generation"): [("content_engine.content_generated", {})],
    ("content_engine", "repurposing"): [("content_engine.content_repurposed", {})],
    ("customer_success", "health_monitoring"): [("customer_success.health_changed", {})],
    ("market_intel", "funnel_monitor"): [("market_intel.analysis_complete", {"analysis_kind": "funnel"})],
    ("market_intel", "conversation_analysis"): [("market_intel.analysis_complete", {"analysis_kind": "conversations"})],
}


def test_there_are_five_operators_22_workflows_22_triggers_and_80_nodes():
    assert len(DEFINITIONS) == 5
    assert len(WORKFLOWS) == 22
    assert len({(operator, workflow.spec.trigger.id) for (operator, _), workflow in WORKFLOWS.items()}) == 22
    assert sum(len(nodes) for nodes in NODES.values()) == 80


def test_each_kind_of_node_is_there_as_often_as_the_operators_need_it():
    kinds = Counter(node.kind for workflow in WORKFLOWS.values() for node in workflow.spec.nodes)
    assert kinds == {"llm": 44, "logic": 29, "conditional": 2, "gate": 5}


def test_the_five_gates_stand_where_a_person_must_decide():
    before = {
        f"{operator}.{workflow}.{node.id}": NODES[operator, workflow][NODES[operator, workflow].index(node.id) - 1]
        for (operator, workflow), definition in WORKFLOWS.items()
        for node in definition.spec.gates
    }
    assert before == {
        "revenue_ops.engagement.review_sequence": "personalize",
        "revenue_ops.nurture_sequence.sales_review": "evaluate",
        "revenue_ops.deal_support.review_actions": "generate_actions",
        "content_engine.distribution.review_schedule": "schedule_posts",
        "customer_success.onboarding.review_welcome": "setup_milestones",
    }


@pytest.mark.parametrize(
    ("place", "gate", "hours", "expiry", "on_reject", "escalates"),
    [
        (("revenue_ops", "engagement"), "review_sequence", 24, "reject", None, ""),
        (("revenue_ops", "nurture_sequence"), "sales_review", 24, "continue", None, ""),
        (("revenue_ops", "deal_support"), "review_actions", 12, "approve", "end", ""),
        (("content_engine", "distribution"), "review_schedule", 24, "reject", "report", ""),
        (("customer_success", "onboarding"), "review_welcome", 48, "reject", None, "owner"),
    ],
)
def test_each_gate_knows_its_deadline_and_what_follows_it(place, gate, hours, expiry, on_reject, escalates):
    [node] = [node for node in WORKFLOWS[place].spec.nodes if node.id == gate]
    spec = node.gate
    assert (spec.timeout, spec.on_timeout) == (timedelta(hours=hours), expiry)
    assert (spec.on_reject, spec.escalate_to) == (on_reject, escalates)


@pytest.mark.parametrize("place", WORKFLOWS, ids=".".join)
def test_each_workflow_runs_from_its_sample_to_its_end(place, stage: Stage):
    run = stage.play(*place)
    if isinstance(run.outcome, Paused):
        run.answer(run.gate.decisions[0])
    assert isinstance(run.outcome, Completed), run.outcome
    assert set(run.steps) <= set(NODES[place])


@pytest.mark.parametrize(
    "place", [place for place, item in WORKFLOWS.items() if item.spec.trigger.kind == "cron"], ids=".".join
)
def test_each_workflow_that_the_clock_starts_needs_no_input(place, stage: Stage):
    run = stage.play(*place, {})
    if isinstance(run.outcome, Paused):
        run.answer("approve")
    assert isinstance(run.outcome, Completed), run.outcome


@pytest.mark.parametrize("place", WORKFLOWS, ids=".".join)
def test_each_workflow_can_be_tried_with_a_sample_and_has_a_time_limit(place):
    spec = WORKFLOWS[place].spec
    assert spec.sample_input
    assert spec.timeout in {timedelta(minutes=minutes) for minutes in (3, 5, 10)}
    assert spec.description


def test_each_prompt_is_asked_for_and_there_is_no_other():
    folder = Path(prompts.__file__).parent
    there = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.md")}
    assert {name for cls in OPERATORS for name in _asked(cls)} == there


def _asked(cls: type) -> set[str]:
    module = inspect.getmodule(cls)
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)]
    names = [call.args[0].value for call in calls if isinstance(call.func, ast.Name) and call.func.id == "ask"]
    return {f"{Path(module.__file__).stem}/{name}" for name in names}


@pytest.mark.parametrize("name", sorted(Path(prompts.__file__).parent.rglob("*.md")), ids=lambda path: path.stem)
def test_each_prompt_says_enough_and_not_too_much(name):
    assert 8 <= len(name.read_text().splitlines()) <= 25


def test_no_event_starts_a_chain_that_leads_back_to_itself():
    starts: dict[Any, set[Any]] = {place: set() for place in WORKFLOWS}
    for place, emissions in EMITTED.items():
        for name, payload in emissions:
            starts[place] |= {heard for heard, _ in hearers(Emission(name, payload, ""))}

    def walk(place: Any, path: tuple[Any, ...]) -> None:
        assert place not in path, f"{path} leads back to {place}"
        for heard in starts[place]:
            walk(heard, (*path, place))

    for place in WORKFLOWS:
        walk(place, ())
    assert sum(len(heard) for heard in starts.values()) >= 12


def test_the_chains_name_every_event_that_is_emitted():
    declared = {name for workflow in WORKFLOWS.values() for name in workflow.spec.emits}
    sources = "".join(inspect.getsource(inspect.getmodule(cls)) for cls in OPERATORS)
    told = {call.args[0] for call in ast.walk(ast.parse(sources)) if _emits(call)}
    literal = {item.value for item in told if isinstance(item, ast.Constant)}
    events = {name for emissions in EMITTED.values() for name, _ in emissions}
    assert declared <= events
    assert {name.partition(".")[2] for name in events} == (
        literal | {"lead_qualified", "lead_nurture"} | {name.partition(".")[2] for name in declared}
    )


def _emits(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "emit"
