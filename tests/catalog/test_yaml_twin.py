"""Company Intelligence in YAML: the same operator as the one in Python, asked the same and answering the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openvibe import config
from openvibe.compiler import compile_workflow
from openvibe.llm.scripted import ScriptedProvider
from openvibe.registry import WorkflowDefinition
from operators import catalog
from tests.catalog.stage import WORKFLOWS, Diary, Run

ANALYSIS = {"prospect_quality": "low", "reasoning": "Small.", "pain_points": ["fees"], "approach_angle": "Ask."}
SCRIPTS: dict[str, list[Any]] = {
    "a fitting answer": ["Payments. " * 20, {"analysis": ANALYSIS}],
    "an answer that is mended": ["Payments. " * 20, "low", {"analysis": ANALYSIS}],
    "words in place of JSON": ["Payments. " * 20, *["A high prospect."] * 3],
    "half of a form": ["Payments. " * 20, *['{"analysis": {"prospect_quality": "high"}}'] * 3],
}


@pytest.fixture(scope="module")
def twin() -> WorkflowDefinition:
    [operator] = config.load(Path(catalog.__file__).with_name("company_intel.yaml"))
    return operator.workflows["research"]


def described(workflow: WorkflowDefinition) -> dict[str, Any]:
    """The description without what its nodes say of themselves: docstrings of functions, in Python of methods."""
    told = workflow.spec.model_dump(mode="json")
    return {**told, "nodes": [{**node, "description": ""} for node in told["nodes"]]}


def played(definition: WorkflowDefinition, script: list[Any]) -> Run:
    run = Run("company_intel", "research", ScriptedProvider(script), Diary(), compiled=compile_workflow(definition))
    return run.start({"company_name": "Stripe"})


def test_both_are_described_alike(twin: WorkflowDefinition):
    assert described(twin) == described(WORKFLOWS["company_intel", "research"])


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_both_behave_alike_however_the_model_answers(twin: WorkflowDefinition, script: list[Any]):
    ours, theirs = played(WORKFLOWS["company_intel", "research"], script), played(twin, script)
    assert theirs.output == ours.output
    assert theirs.host.buckets == ours.host.buckets
    assert theirs.emitted == ours.emitted
    assert [(call.system, call.user, call.model, call.temperature) for call in theirs.provider.calls] == [
        (call.system, call.user, call.model, call.temperature) for call in ours.provider.calls
    ]


def test_both_ask_for_answers_of_the_same_form(twin: WorkflowDefinition):
    script = SCRIPTS["a fitting answer"]
    forms = [
        _form(played(item, script).provider.calls[1].schema) for item in (twin, WORKFLOWS["company_intel", "research"])
    ]
    assert forms[0] == forms[1]


def _form(schema: Any) -> Any:
    """A schema without the names and remarks that its author gave it."""
    if not isinstance(schema, dict):
        return schema
    kept = {key: _form(value) for key, value in schema.items() if key not in ("title", "description")}
    return {key: value for key, value in kept.items() if key != "$ref"}
