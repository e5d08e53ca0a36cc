"""Names of events in one spelling, what a workflow listens to, and the input that an event gives it."""

from __future__ import annotations

from typing import Any

import pytest

from openvibe import Listen, SetupError, node, operator, workflow
from openvibe.registry import Registry
from openvibe.subscriptions import canonical, fits, pattern

OWN = "revenue_ops"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("lead_qualified", "revenue_ops.lead_qualified"),
        ("lead.qualified", "revenue_ops.lead_qualified"),
        ("lead-qualified", "revenue_ops.lead_qualified"),
        ("self:lead_qualified", "revenue_ops.lead_qualified"),
        ("self.lead.qualified", "revenue_ops.lead_qualified"),
        ("revenue_ops.lead_qualified", "revenue_ops.lead_qualified"),
        ("revenue_ops:lead.qualified", "revenue_ops.lead_qualified"),
        ("q2", "revenue_ops.q2"),
    ],
)
def test_an_emitted_event_has_one_spelling(given, name):
    assert canonical(given, owner=OWN) == name


@pytest.mark.parametrize("given", ["", "Lead", "lead qualified", "2nd", "lead*", "self:", "_x", "é"])
def test_what_is_no_event_type_is_refused_naming_it(given):
    with pytest.raises(ValueError, match="is no event type; use lower-case letters") as caught:
        canonical(given, owner=OWN)
    assert repr(given) in str(caught.value)


def test_an_operator_emits_events_of_its_own_only():
    assert canonical("market_intel.analysis", owner=OWN) == "revenue_ops.market_intel_analysis"


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("company_intel.research_complete", "company_intel.research_complete"),
        ("company_intel:research_complete", "company_intel.research_complete"),
        ("company_intel.research-complete", "company_intel.research_complete"),
        ("self:lead_nurture", "revenue_ops.lead_nurture"),
        ("self.lead.nurture", "revenue_ops.lead_nurture"),
        ("self.*", "revenue_ops.*"),
        ("lead_nurture", "revenue_ops.lead_nurture"),
        ("lead.qualified", "lead.qualified"),
        ("company_intel.*", "company_intel.*"),
        ("*.research_complete", "*.research_complete"),
        ("*", "*"),
        ("*.*", "*.*"),
    ],
)
def test_what_a_workflow_listens_to_has_one_spelling(given, spelled):
    assert pattern(given, owner=OWN) == spelled


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Lead.qualified",
        "lead qualified",
        "a..b",
        "a.b.",
        ".b",
        "a.b*",
        "self.lead_*",
        "a.*.b",
        "self:",
        "self",
        "a/b",
    ],
)
def test_what_is_no_event_is_refused_with_the_form_to_write(given):
    with pytest.raises(ValueError, match=r"is no event; write <operator>\.<type>, where \* stands for any") as caught:
        pattern(given, owner=OWN)
    assert repr(given) in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "name", "fit"),
    [
        ("company_intel.research_complete", "company_intel.research_complete", True),
        ("company_intel.research_complete", "company_intel.research_failed", False),
        ("company_intel.research_complete", "market_intel.research_complete", False),
        ("company_intel.research.complete", "company_intel.research_complete", True),
        ("company_intel.*", "company_intel.research_complete", True),
        ("company_intel.*", "company_intel_two.research_complete", False),
        ("*.research_complete", "market_intel.research_complete", True),
        ("*.research_complete", "market_intel.research", False),
        ("*", "anything.at_all", True),
        ("*.*", "anything.at_all", True),
        ("lead.qualified", "revenue_ops.lead_qualified", True),
        ("lead.qualified", "lead.qualified", True),
        ("lead.qualified", "content_engine.lead_qualified", False),
        ("revenue_ops.qualified", "revenue_ops.lead_qualified", False),
    ],
)
def test_a_pattern_fits_the_events_that_it_means(wanted, name, fit):
    assert fits(wanted, name, owner=OWN) is fit


# ── one subscription ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("where", "payload", "heard"),
    [
        ({}, {}, True),
        ({"quality": "high"}, {"quality": "high", "other": 1}, True),
        ({"quality": "high"}, {"quality": "low"}, False),
        ({"quality": "high"}, {}, False),
        ({"quality": ["high", "fair"]}, {"quality": "fair"}, True),
        ({"quality": ["high", "fair"]}, {"quality": "low"}, False),
        ({"quality": ["high"]}, {"quality": ["high"]}, False),
        ({"quality": "high", "rush": True}, {"quality": "high", "rush": False}, False),
        ({"lead": None}, {}, True),
    ],
)
def test_a_subscription_hears_the_payloads_that_have_its_values(where, payload, heard):
    listen = Listen("company_intel.research_complete", where=where)
    assert listen.hears("company_intel.research_complete", payload, owner=OWN) is heard


def test_a_subscription_hears_no_other_event_whatever_its_payload():
    assert not Listen("company_intel.research_complete").hears("company_intel.other", {}, owner=OWN)


def test_a_payload_field_that_bears_an_inputs_name_becomes_that_input():
    payload = {"company": "Acme", "score": 7}
    assert Listen("a.b").input(payload, ("company", "industry")) == {"company": "Acme"}


def test_takes_says_which_payload_field_fills_which_input():
    listen = Listen("a.b", takes={"company": "company_name", "industry": "sector"})
    assert listen.input({"company_name": "Acme", "company": "not this"}, ("company", "industry")) == {"company": "Acme"}


@pytest.mark.parametrize("options", [{"wher": {}}, {"takes": ["company"]}, {"where": "quality"}])
def test_a_wrong_subscription_is_refused_naming_the_event_and_the_option(options):
    with pytest.raises(SetupError, match=rf"Listen\('a\.b'\): {next(iter(options))}=") as caught:
        Listen("a.b", **options)
    assert "a.b" in str(caught.value)


def test_a_subscription_reads_from_plain_data():
    listen = Listen("a.b", where={"x": [1]}, takes={"y": "z"})
    assert Listen.model_validate(listen.model_dump(mode="json")) == listen


# ── among operators ──────────────────────────────────────────────────────────────────────────────────────────────────


def desk(id: str, **options: Any) -> type:
    class Write:
        @node
        def step(self, state):
            return None

    @operator(id=id)
    class Desk:
        company: str = ""
        industry: str = ""

        Flow = workflow(id="write", **options)(Write)

    return Desk


def started(registry: Registry, name: str, **payload: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(flow.operator_id, given) for flow, given in registry.listeners(name, payload)]


def test_an_event_starts_all_who_listen_to_it_with_the_input_that_each_one_takes():
    registry = Registry()
    registry.register(desk("one", trigger="event:company_intel:research_complete"))
    registry.register(desk("two", listens=(Listen("company_intel.*", takes={"industry": "sector"}),)))
    registry.register(desk("three", listens=("market_intel.*",)))
    payload = {"company": "Acme", "sector": "steel"}
    assert started(registry, "company_intel.research_complete", **payload) == [
        ("one", {"company": "Acme"}),
        ("two", {"industry": "steel"}),
    ]


def test_a_workflow_that_hears_an_event_twice_starts_once():
    registry = Registry()
    registry.register(desk("one", trigger="event:company_intel.done", listens=("company_intel.*", "*")))
    assert started(registry, "company_intel.done", company="Acme") == [("one", {"company": "Acme"})]


def test_an_operators_own_event_is_heard_by_self_and_by_its_bare_name():
    registry = Registry()
    registry.register(desk("one", trigger="event:self:lead_qualified"))
    registry.register(desk("two", trigger="event:lead.qualified"))
    assert started(registry, "one.lead_qualified") == [("one", {})]
    assert started(registry, "two.lead_qualified") == [("two", {})]
    assert started(registry, "lead.qualified") == [("two", {})]


def test_inputs_that_a_workflow_does_not_take_are_not_filled():
    registry = Registry()
    registry.register(desk("one", trigger="event:a.b", inputs=("industry",)))
    assert started(registry, "a.b", company="Acme", industry="steel") == [("one", {"industry": "steel"})]


def test_a_workflows_emissions_have_their_canonical_names():
    definition = Registry().register(desk("one", emits=("research.complete", "self:done", "done")))
    assert definition.workflows["write"].spec.emits == ("one.research_complete", "one.done")


def test_a_request_finds_the_workflow_that_serves_the_capability():
    registry = Registry()
    one = registry.register(desk("one", capability="research"))
    two = registry.register(desk("two", trigger="request:research"))
    assert registry.server("one", "research") is one.workflows["write"]
    assert registry.server("two", "research") is two.workflows["write"]
    assert registry.server("one", "scoring") is None
    assert registry.server("three", "research") is None
