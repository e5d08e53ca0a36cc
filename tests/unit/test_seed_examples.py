"""The published examples of the SDK run against this package; each file says how far it is word for word."""

import importlib
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from openvibe import OperatorRuntime, RunError, config, configuration, node, operator, sources, workflow
from openvibe.llm.scripted import ScriptedProvider
from openvibe.registry import define
from openvibe.testing import play

HERE = Path(__file__).parent / "published_examples"
SCORES = {"fit_score": 90, "intent_score": 80, "urgency_score": 70}


def example(name):
    return importlib.import_module(f"tests.unit.published_examples.{name}")


def test_the_minimal_program_says_hello():
    [hello] = sources.offered(str(HERE / "minimal.py"))
    run = play(hello, "greet", {}, provider=ScriptedProvider(["Hello!"]))
    assert (run.status, run.output) == ("completed", {"greeting": "Hello!"})


@pytest.mark.parametrize(
    ("scores", "composite", "route"),
    [((90, 80, 70), 81.5, "sales"), ((60, 60, 60), 60.0, "nurture"), ((10, 20, 30), 18.5, "educate")],
)
def test_a_lead_is_qualified(scores, composite, route):
    answer = dict(zip(SCORES, scores, strict=True))
    model = ScriptedProvider(["A company.", answer])
    run = play(example("lead_qualification").RevenueOps, "lead_qualification", {"contact_id": "c1"}, provider=model)
    assert run.status == "completed", run.error
    assert run.output["route"] == route
    assert run.output["composite_score"] == pytest.approx(composite)
    assert run.output["crm_updated"] is True
    assert model.calls[0].user == "Enrich this contact: c1"
    assert model.calls[1].user == "Score this lead:\nA company."


def test_the_nurture_sequence_is_durable_and_hears_of_qualified_leads():
    flow = define(example("nurture_sequence").RevenueOps).spec.workflow("nurture_sequence")
    assert flow.max_duration == timedelta(days=14)
    assert flow.trigger.text == "event:lead.qualified"


@pytest.mark.parametrize(("score", "label"), [(71, "upgrade"), (31, "continue"), (30, "archive")])
def test_the_nurture_sequence_rests_three_days_and_asks_sales(score, label):
    with OperatorRuntime(llm=ScriptedProvider(["Fits.", "Dear lead,"])) as runtime:
        runtime.register(example("nurture_sequence").RevenueOps)
        run = runtime.activate("revenue_ops", "nurture_sequence", {"lead": "Ada", "engagement_score": score})
        assert [wait.kind for wait in run.open_waits] == ["timer"]
        runtime.advance(timedelta(days=2, hours=23))
        assert [wait.kind for wait in runtime.run(run.id).open_waits] == ["timer"]
        runtime.advance(timedelta(hours=2))
        [gate] = runtime.run(run.id).open_waits
        assert (gate.kind, gate.prompt) == ("approval", "Lead replied. Review and decide: continue or handoff?")
        assert (gate.deadline - gate.opened_at) == timedelta(hours=24)
        run = runtime.resume(run.id, "approve")
    assert (run.status, run.output["evaluate"]) == ("completed", label)


def test_decorator_mode_researches():
    model = ScriptedProvider(["Payments."])
    run = play(example("company_intel").CompanyIntel, "research", {"company_name": "Stripe"}, provider=model)
    assert run.output == {"company_name": "Stripe", "research": "Payments."}


def test_the_yaml_example_loads_as_it_is():
    [definition] = config.read(HERE / "operators.yaml").definitions(complete=False)
    nodes = definition.spec.workflow("research").nodes
    assert [(node.id, node.kind) for node in nodes] == [
        ("research", "llm"),
        ("analyze", "llm"),
        ("decide", "logic"),
        ("report", "llm"),
    ]
    assert [node.model.model for node in nodes if node.model] == ["haiku", "sonnet", "haiku"]
    assert definition.spec.workflow("research").inputs == ("company_name",)


@pytest.fixture
def hybrid_folder(tmp_path, monkeypatch):
    shutil.copytree(HERE / "prompts", tmp_path / "prompts")
    text = (HERE / "operators.yaml").read_text()
    named = text.replace("intel/analyze.md\n", "intel/analyze.md\n            output_key: analysis\n")
    (tmp_path / "operators.yaml").write_text(named)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("analysis", "decision"), [("A Series B company", "high"), ("A bakery", "normal")])
def test_the_hybrid_example_decides_in_python(hybrid_folder, analysis, decision):
    before = configuration.current()
    configuration.configure(llm=ScriptedProvider(["Research.", analysis, "Report."]))
    try:
        runtime = importlib.reload(example("hybrid")).runtime
    finally:
        configuration.restore(before)
    with runtime:
        run = runtime.activate("company_intel", "research", {"company_name": "Stripe"})
    assert run.status == "completed", run.error
    assert run.output == {
        "company_name": "Stripe",
        "research": "Research.",
        "analysis": analysis,
        "decision": decision,
        "report": "Report.",
    }


def test_the_hooks_hear_of_runs(capsys):
    hooks = importlib.reload(example("hooks"))
    with hooks.runtime as runtime:
        runtime.register(example("company_intel").CompanyIntel)
        run = runtime.activate("company_intel", "research", {"company_name": "Stripe"})
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"Started: {run.id}"
    assert said[1].startswith(f"Done: {run.id} in ")
    assert float(said[1].split(" in ")[1].removesuffix("s")) == pytest.approx(run.metrics.duration_seconds, abs=0.01)
    assert hooks.alerts == []


def test_the_hooks_hear_of_failing_nodes():
    @operator(id="shop")
    class Shop:
        @workflow(id="sell")
        class Sell:
            @node
            def charge(self, state):
                raise RunError("No money")

    hooks = importlib.reload(example("hooks"))
    with hooks.runtime as runtime:
        runtime.register(Shop)
        assert runtime.activate("shop", "sell").error == "No money"
    assert hooks.alerts == ["Node failed: charge"]
