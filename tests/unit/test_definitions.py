# long: a table of wrong definitions, one function each
"""Definitions: what the decorators accept, and how each mistake is told to the author."""

from collections.abc import Callable
from datetime import timedelta
from threading import Lock
from typing import Any

import pytest

import openvibe
from openvibe import SetupError, human_in_the_loop, llm_node, node, operator, workflow
from openvibe.registry import Registry, define


def hello(prompt: str = "You are friendly.") -> type:
    @operator(id="hello", name="Hello World", owner="alice")
    class Hello:
        """Greets people."""

        name: str = "you"
        greeting: str = ""

        @workflow(id="greet", inputs=("name",), sample_input={"name": "Ada"})
        class Greet:
            @llm_node(model="haiku")
            def greet(self, state):
                return {"system": "You are friendly.", "user": "Say hello!", "output_key": "greeting"}

            @human_in_the_loop(prompt=prompt, timeout=timedelta(hours=1), edits=("greeting",))
            def review(self, state):
                return None

            @node
            def send(self, state):
                """Send it."""
                return {"greeting": state["greeting"] + "!"}

    return Hello


def with_workflow(inner: type, **fields: Any) -> type:
    """Return an operator `desk` with a text field `letter`, the given fields (name → default) and one workflow."""
    body = {"__annotations__": {"letter": str} | {name: type(value) for name, value in fields.items()}}
    return operator(id="desk")(type("Desk", (), {**body, "letter": "", **fields, inner.__name__: inner}))


def with_node(method: Callable[..., Any], *, name: str = "step", **options: Any) -> type:
    """Return an operator `desk` with one workflow of one node."""
    return with_workflow(workflow(id="write", **options)(type("Write", (), {name: method})))


@node
def step(self, state):
    return None


def no_operator():
    class Plain: ...

    define(Plain)


def no_workflow():
    @operator(id="desk")
    class Desk:
        letter: str = ""

    define(Desk)


def no_node():
    define(with_workflow(workflow(id="write")(type("Write", (), {"helper": lambda self: None}))))


def duplicate_workflow_id():
    @operator(id="desk")
    class Desk:
        @workflow(id="write")
        class Write:
            step = step

        @workflow(id="write")
        class WriteAgain:
            step = step

    define(Desk)


def node_without_state():
    define(with_node(node(lambda self: None)))


def node_with_more_than_state():
    define(with_node(node(lambda self, state, context, more: None)))


def gate_edits_unknown_field():
    define(with_node(human_in_the_loop(prompt="Send?", edits=("lettre",))(lambda self, state: None)))


def gate_rejects_to_unknown_node():
    define(with_node(human_in_the_loop(prompt="Send?", on_reject="rewrite")(lambda self, state: None)))


def gate_rejects_backwards():
    @operator(id="desk")
    class Desk:
        @workflow(id="write")
        class Write:
            step = step

            @human_in_the_loop(prompt="Send?", on_reject="step")
            def review(self, state):
                return None

            @node
            def send(self, state):
                return None

    define(Desk)


def gate_without_decisions():
    human_in_the_loop(prompt="Send?", decisions=())(lambda self, state: None)


def gate_without_prompt():
    human_in_the_loop(prompt="")(lambda self, state: None)


def gate_with_unknown_expiry():
    human_in_the_loop(prompt="Send?", timeout=timedelta(1), on_timeout="escalate")(lambda self, state: None)


def gate_with_timeout_but_no_expiry():
    human_in_the_loop(prompt="Send?", decisions=("yes", "no"), timeout=timedelta(1))(lambda self, state: None)


def gate_with_edits_in_no_tuple():
    human_in_the_loop(prompt="Send?", edits="letter")(lambda self, state: None)


def gate_with_decisions_in_no_tuple():
    human_in_the_loop(prompt="Send?", decisions="approve")(lambda self, state: None)


def trigger(text: str) -> Callable[[], None]:
    return lambda: define(with_node(step, trigger=text)) and None


def unknown_input():
    define(with_node(step, inputs=("lettre",)))


def sample_input_of_wrong_type():
    inner = workflow(id="write", sample_input={"amount": "many"})(type("Write", (), {"step": step}))
    define(with_workflow(inner, amount=1))


def sample_input_for_no_input():
    define(with_node(step, inputs=(), sample_input={"letter": "x"}))


def bad_default():
    @operator(id="desk")
    class Desk:
        amount: int = "many"

        @workflow(id="write")
        class Write:
            step = step

    define(Desk)


def type_that_cannot_be_held():
    @operator(id="desk")
    class Desk:
        lock: Lock

        @workflow(id="write")
        class Write:
            step = step

    define(Desk)


def type_that_is_not_imported():
    @operator(id="desk")
    class Desk:
        lead: "Lead"  # noqa: F821

        @workflow(id="write")
        class Write:
            step = step

    define(Desk)


def bad_operator_id():
    @operator(id="Front-Desk")
    class Desk:
        @workflow(id="write")
        class Write:
            step = step

    define(Desk)


def bad_workflow_id():
    define(with_workflow(workflow(id="write letter")(type("Write", (), {"step": step}))))


def bad_node_id():
    define(with_node(step, name="Step"))


def bad_trigger_id():
    define(with_node(step, trigger_id="on-demand"))


def operator_twice():
    @operator(id="desk")
    @operator(id="desk")
    class Desk: ...


def workflow_that_is_an_operator():
    @operator(id="desk")
    @workflow(id="write")
    class Desk: ...


def node_twice():
    @node
    @llm_node()
    def draft(self, state): ...


def operator_on_a_function():
    @operator(id="desk")
    def desk(): ...


def workflow_on_a_function():
    @workflow(id="write")
    def write(self): ...


def node_on_a_class():
    @node
    class Draft: ...


def node_with_a_positional_option():
    node("draft")


def llm_node_on_a_class():
    @llm_node()
    class Draft: ...


def llm_node_of_no_attempt():
    llm_node(attempts=0)(lambda self, state: None)


def llm_node_of_no_tokens():
    llm_node(max_tokens=0)(lambda self, state: None)


def llm_node_too_hot():
    llm_node(temperature=3)(lambda self, state: None)


def llm_node_of_unknown_format():
    llm_node(output_format="xml")(lambda self, state: None)


MISTAKES: list[tuple[Callable[[], None], list[str]]] = [
    (no_operator, ["Plain", "@operator(id=…)"]),
    (no_workflow, ["'desk'", "Desk", "@workflow(id=…)"]),
    (no_node, ["Write", "'write'", "@node or @llm_node"]),
    (duplicate_workflow_id, ["Desk.WriteAgain", "'write'", "twice"]),
    (node_without_state, ["Write", "'step'", "must take (self, state)"]),
    (node_with_more_than_state, ["Write", "'step'", "must take (self, state)"]),
    (gate_edits_unknown_field, ["Write", "'step'", "'lettre'", "no state fields"]),
    (gate_rejects_to_unknown_node, ["Write", "'step'", "on_reject='rewrite'", "use 'end' or a later node"]),
    (gate_rejects_backwards, ["Write", "'review'", "on_reject='step'", "use 'end' or a later node: ['send']"]),
    (gate_without_decisions, ["@human_in_the_loop", "gate_without_decisions", "at least one decision"]),
    (gate_without_prompt, ["@human_in_the_loop", "gate_without_prompt", "needs a prompt"]),
    (gate_with_unknown_expiry, ["gate_with_unknown_expiry", "on_timeout='escalate'", "('approve', 'reject')"]),
    (gate_with_timeout_but_no_expiry, ["gate_with_timeout_but_no_expiry", "on_timeout=", "('yes', 'no')"]),
    (gate_with_edits_in_no_tuple, ["gate_with_edits_in_no_tuple", "edits", "valid tuple"]),
    (gate_with_decisions_in_no_tuple, ["gate_with_decisions_in_no_tuple", "decisions", "valid tuple"]),
    (trigger("sometimes"), ["Write", "'sometimes'", "on_demand", "cron:<five fields>"]),
    (trigger("sometimes:x"), ["Write", "'sometimes:x'", "on_demand"]),
    (trigger("cron:"), ["Write", "'cron:'", "cron:<five fields>"]),
    (trigger("webhook"), ["Write", "'webhook'", "webhook:<source>"]),
    (trigger("on_demand:now"), ["Write", "'on_demand:now'", "on_demand"]),
    (unknown_input, ["Write", "inputs=", "'lettre'", "no state fields"]),
    (sample_input_of_wrong_type, ["Write", "sample_input", "amount", "takes int"]),
    (sample_input_for_no_input, ["Write", "sample_input", "letter", "its inputs are: none"]),
    (bad_default, ["Desk.amount", "'many'", "int"]),
    (type_that_cannot_be_held, ["Desk.lock", "no type that a state field can hold"]),
    (type_that_is_not_imported, ["Desk", "'Lead'", "import it"]),
    (bad_operator_id, ["Desk", "id='Front-Desk'", "pattern"]),
    (bad_workflow_id, ["Write", "id='write letter'", "pattern"]),
    (bad_node_id, ["Write", "'Step'", "lower-case letters"]),
    (bad_trigger_id, ["Write", "id='on-demand'", "pattern"]),
    (operator_twice, ["Desk", "decorated twice", "one OpenVibe decorator"]),
    (workflow_that_is_an_operator, ["Desk", "decorated twice", "one OpenVibe decorator"]),
    (node_twice, ["draft", "decorated twice", "one OpenVibe decorator"]),
    (operator_on_a_function, ["@operator decorates a class", "desk"]),
    (workflow_on_a_function, ["@workflow decorates a class", "write"]),
    (node_on_a_class, ["@node decorates a method", "Draft"]),
    (node_with_a_positional_option, ["@node decorates a method", "'draft'", "options are keywords: @node(…)"]),
    (llm_node_on_a_class, ["@llm_node decorates a method", "Draft"]),
    (llm_node_of_no_attempt, ["@llm_node", "llm_node_of_no_attempt", "attempts", "greater than or equal to 1"]),
    (llm_node_of_no_tokens, ["@llm_node", "llm_node_of_no_tokens", "max_tokens", "greater than 0"]),
    (llm_node_too_hot, ["@llm_node", "llm_node_too_hot", "temperature", "less than or equal to 2"]),
    (llm_node_of_unknown_format, ["@llm_node", "llm_node_of_unknown_format", "output_format", "'text' or 'json'"]),
]


@pytest.mark.parametrize(("mistake", "told"), MISTAKES, ids=lambda item: getattr(item, "__name__", ""))
def test_a_wrong_definition_is_refused_naming_place_and_remedy(mistake, told):
    with pytest.raises(SetupError) as caught:
        mistake()
    missing = [part for part in told if part not in str(caught.value)]
    assert not missing, f"{caught.value} lacks {missing}"


@pytest.mark.parametrize(
    "decorator", [node, node(), llm_node(), human_in_the_loop(prompt="Send?")], ids=["node", "node()", "llm", "gate"]
)
def test_a_node_decorator_returns_the_same_function(decorator):
    def method(self, state):
        return {"letter": "x"}

    assert decorator(method) is method
    assert method(None, {}) == {"letter": "x"}


@pytest.mark.parametrize("decorator", [operator(id="desk"), workflow(id="write")], ids=["operator", "workflow"])
def test_a_class_decorator_returns_the_same_class(decorator):
    class Thing: ...

    assert decorator(Thing) is Thing


def test_the_public_names_are_these():
    assert openvibe.__all__ == [
        "NOT_DONE",
        "Ctx",
        "Listen",
        "OpenVibeError",
        "Retry",
        "RunError",
        "SetupError",
        "ToolError",
        "agent_node",
        "conditional",
        "durable",
        "human_in_the_loop",
        "llm_node",
        "node",
        "operator",
        "remote_node",
        "remote_tool",
        "workflow",
    ]
    assert all(hasattr(openvibe, name) for name in openvibe.__all__)


def test_a_definition_describes_the_operator():
    spec = define(hello()).spec
    assert (spec.id, spec.name, spec.description, spec.owner) == ("hello", "Hello World", "Greets people.", "alice")


def test_the_order_of_nodes_is_the_order_of_their_methods():
    spec = define(hello()).spec.workflow("greet")
    assert [(item.id, item.kind) for item in spec.nodes] == [("greet", "llm"), ("review", "gate"), ("send", "logic")]
    assert [item.id for item in spec.gates] == ["review"]


def test_a_workflow_takes_only_its_inputs():
    spec = define(hello()).spec.workflow("greet")
    assert spec.inputs == ("name",)
    assert list(spec.input_schema["properties"]) == ["name"]
    assert spec.sample_input == {"name": "Ada"}


def test_a_workflow_that_names_no_inputs_takes_every_state_field():
    assert define(with_node(step)).spec.workflow("write").inputs == ("letter",)


@pytest.mark.parametrize("text", ["on_demand", "cron:0 9 * * 1", "webhook:crm", "event:desk.sent", "request:drafting"])
def test_a_trigger_reads_as_it_was_written(text):
    assert define(with_node(step, trigger=text)).spec.workflow("write").trigger.text == text


def test_a_trigger_is_named_after_its_workflow_unless_told():
    assert define(with_node(step)).spec.workflow("write").trigger.id == "write"
    assert define(with_node(step, trigger_id="monday")).spec.workflow("write").trigger.id == "monday"


def test_a_gate_that_can_be_rejected_is_rejected_when_its_time_is_up():
    [gate] = define(hello()).spec.workflow("greet").gates
    assert gate.gate.on_timeout == "reject"


def test_the_version_stays_when_nothing_changes():
    versions = {define(hello()).spec.workflow("greet").version for _ in range(2)}
    assert len(versions) == 1


def test_the_version_changes_when_a_prompt_changes():
    versions = {define(hello(prompt)).spec.workflow("greet").version for prompt in ("Send it?", "Really send it?")}
    assert len(versions) == 2


def test_a_registered_operator_is_found_with_its_workflows():
    registry = Registry()
    definition = registry.register(hello())
    assert list(registry) == [definition]
    assert registry.workflow("hello", "greet") is definition.workflows["greet"]


def test_what_is_not_registered_is_not_found():
    registry = Registry()
    registry.register(hello())
    assert registry.workflow("hello", "part") is None
    assert registry.workflow("bye", "greet") is None


def test_an_operator_with_one_wrong_workflow_is_not_registered_at_all():
    @operator(id="desk")
    class Desk:
        @workflow(id="good")
        class Good:
            step = step

        @workflow(id="bad", trigger="sometimes")
        class Bad:
            step = step

    registry = Registry()
    with pytest.raises(SetupError, match="Bad"):
        registry.register(Desk)
    assert list(registry) == []
    assert registry.workflow("desk", "good") is None


def test_a_taken_operator_id_is_refused_and_the_first_stays():
    registry = Registry()
    first = registry.register(hello())
    with pytest.raises(SetupError, match=r"Hello: an operator with id 'hello' is registered already"):
        registry.register(hello())
    assert list(registry) == [first]
