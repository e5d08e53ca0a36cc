# long: a table of wrong definitions, one function each
"""Definitions: what the decorators accept, and how each mistake is told to the author."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Lock
from typing import Annotated, Any

import pytest
from langgraph.graph import StateGraph
from pydantic import Field

import openvibe
from openvibe import (
    Listen,
    Retry,
    SetupError,
    agent_node,
    conditional,
    durable,
    human_in_the_loop,
    llm_node,
    node,
    operator,
    remote_node,
    remote_tool,
    workflow,
)
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


def schedule_that_gives_no_input():
    @operator(id="desk")
    class Desk:
        letter: str

        @workflow(id="write", trigger="cron:0 7 * * *")
        class Write:
            step = step

    define(Desk)


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


def bound_that_no_type_can_have():
    @operator(id="desk")
    class Desk:
        amount: Annotated[int, Field(ge=1.5)]

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


def duplicate_operator_id():
    registry = Registry()
    registry.register(hello())
    registry.register(hello())


def two_workflows(first: dict[str, Any], second: dict[str, Any]) -> None:
    @operator(id="desk")
    class Desk:
        letter: str = ""

        @workflow(id="write", **first)
        class Write:
            step = step

        @workflow(id="send", **second)
        class Send:
            step = step

    define(Desk)


def duplicate_trigger_id():
    two_workflows({"trigger_id": "monday"}, {"trigger_id": "monday"})


def trigger_id_of_another_workflow():
    two_workflows({}, {"trigger_id": "write"})


def duplicate_capability():
    two_workflows({"capability": "drafting"}, {"trigger": "request:drafting"})


def unknown_next():
    define(with_node(node(next="send")(lambda self, state: None)))


def goto_unknown_node():
    define(with_node(human_in_the_loop(prompt="Send?", goto={"approve": "sent"})(lambda self, state: None)))


def goto_of_unknown_decision():
    human_in_the_loop(prompt="Send?", goto={"later": "end"})(lambda self, state: None)


def with_nodes(**methods: Any) -> None:
    define(with_workflow(workflow(id="write")(type("Write", (), methods))))


def unreachable_node():
    with_nodes(first=node(next="end")(lambda self, state: None), second=step)


def endless_loop():
    with_nodes(first=step, second=node(next="first")(lambda self, state: None))


def endless_choice():
    routes = {"first": lambda state: True}
    with_nodes(first=step, second=conditional(routes=routes)(lambda self, state: None))


def llm_node_without_return():
    @llm_node()
    def draft(self, state):
        state["letter"] = "x"

    with_nodes(draft=draft)


def agent_node_without_return():
    @agent_node(tools=[look_up])
    async def draft(self, state):
        return

    with_nodes(draft=draft)


def remote_node_without_return():
    @remote_node(role="coding")
    def draft(self, state): ...

    with_nodes(draft=draft)


def bad_event():
    define(with_node(step, trigger="event:Lead Qualified"))


def bad_subscription():
    define(with_node(step, listens=("Lead Qualified",)))


def subscription_that_fills_no_input():
    define(with_node(step, listens=(Listen("crm.lead", takes={"lettre": "text"}),)))


def subscription_of_wrong_form():
    Listen("crm.lead", takes=["letter"])


def bad_emission():
    define(with_node(step, emits=("Letter Sent!",)))


def emissions_in_no_tuple():
    define(with_node(step, emits="letter_sent"))


def subscriptions_in_no_tuple():
    define(with_node(step, listens="crm.lead"))


def inputs_in_no_tuple():
    define(with_node(step, inputs="letter"))


def bad_capability():
    define(with_node(step, capability="Research!"))


def durable_for_no_time():
    durable(max_days=0)(type("Write", (), {}))


def durable_for_ever():
    durable(max_days=10_000)(type("Write", (), {}))


def durable_function():
    durable(max_days=1)(lambda self: None)


def durable_alone():
    @operator(id="desk")
    class Desk:
        @durable(max_days=14)
        class Write:
            step = step

    define(Desk)


def timeout_of_no_time():
    define(with_node(node(timeout=timedelta())(lambda self, state: None)))


def workflow_timeout_of_no_time():
    define(with_node(step, timeout=timedelta(seconds=-1)))


def gate_timeout_of_no_time():
    human_in_the_loop(prompt="Send?", timeout=timedelta())(lambda self, state: None)


def look_up(name: str) -> str:
    """Look a name up."""
    return name


def agent(*tools: Any, **options: Any) -> None:
    with_nodes(draft=agent_node(tools=tools, **options)(lambda self, state: {"user": "x", "output_key": "letter"}))


def tool_without_docstring():
    def price(product: str) -> float:
        return 9.5

    agent(price)


def tool_without_type():
    def price(product) -> float:
        """Look up a price."""
        return 9.5

    agent(price)


def tool_of_any_number_of_arguments():
    def price(*products: str) -> float:
        """Look up a price."""
        return 9.5

    agent(price)


def tool_of_unknown_type():
    def price(product: "Product") -> float:  # noqa: F821
        """Look up a price."""
        return 9.5

    agent(price)


def tool_of_a_type_that_json_has_not():
    def price(lock: Lock) -> float:
        """Look up a price."""
        return 9.5

    agent(price)


def tool_that_is_none():
    agent("price")


def tool_that_is_a_class():
    agent(Registry)


def tool_without_a_name():
    agent(partial(look_up, name="x"))


def tool_of_unusable_name():
    agent(remote_tool("web.crawl", description="Read a page."))


def two_tools_of_one_name():
    agent(look_up, remote_tool("look_up", description="Look up elsewhere."))


def agent_without_tools():
    agent_node(tools=[])(lambda self, state: None)


def agent_of_no_step():
    agent(look_up, max_steps=0)


def agent_of_too_many_steps():
    agent(look_up, max_steps=1_000)


def brought(graph: Any, **body: Any) -> None:
    define(with_workflow(workflow(id="write", graph=graph)(type("Write", (), body))))


def graph_beside_nodes():
    brought(StateGraph(dict), step=step)


def graph_that_is_none():
    brought({"nodes": []})


def graph_that_cannot_be_compiled():
    brought(StateGraph(dict))


def escalation_without_timeout():
    human_in_the_loop(prompt="Send?", escalate_to="owner")(lambda self, state: None)


def node_named_end():
    with_nodes(end=step)


def gate_that_keeps_nothing():
    method = human_in_the_loop(prompt="Send?")(lambda self, state: None)
    define(with_node(method, checkpointed=False))


def remote_work_that_keeps_nothing():
    method = remote_node(role="coding")(lambda self, state: {"task": 1, "output_key": "letter"})
    define(with_node(method, checkpointed=False))


def remote_tool_that_keeps_nothing():
    crawl = remote_tool("crawl", description="Read a page.")
    method = agent_node(tools=[crawl])(lambda self, state: {"user": "x", "output_key": "letter"})
    define(with_node(method, checkpointed=False))


def remote_node_of_wrong_role():
    remote_node(role="Coding Agent")(lambda self, state: None)


def conditional_without_routes():
    conditional(routes={})(lambda self, state: None)


def conditional_with_a_route_that_is_no_function():
    conditional(routes={"sales": "score > 80"})(lambda self, state: None)


def retry_of_no_try():
    Retry(attempts=0)


def field_named_like_a_rest():
    define(with_workflow(workflow(id="write")(type("Write", (), {"step": step})), wait_duration=1))


def node_decorated_by_nothing_known():
    with_nodes(first=step, second=node(retry="often")(lambda self, state: None))


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
    (schedule_that_gives_no_input, ["Write", "'letter' is required", "give it a default"]),
    (unknown_input, ["Write", "inputs=", "'lettre'", "no state fields"]),
    (sample_input_of_wrong_type, ["Write", "sample_input", "amount", "takes int"]),
    (sample_input_for_no_input, ["Write", "sample_input", "letter", "its inputs are: none"]),
    (bad_default, ["Desk.amount", "'many'", "int"]),
    (type_that_cannot_be_held, ["Desk.lock", "no type that a state field can hold"]),
    (bound_that_no_type_can_have, ["Desk.amount", "no type that a state field can hold"]),
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
    (duplicate_operator_id, ["Hello", "'hello'", "registered already", "another id"]),
    (duplicate_trigger_id, ["Desk", "trigger id 'monday'", "'write'", "give 'send' another"]),
    (trigger_id_of_another_workflow, ["Desk", "trigger id 'write'", "give 'send' another"]),
    (duplicate_capability, ["Desk", "capability 'drafting'", "'write'", "give 'send' another"]),
    (unknown_next, ["Write", "'step'", "next='send'", "use 'end' or one of ['step']"]),
    (goto_unknown_node, ["Write", "'step'", "goto= to ['sent']", "use 'end' or one of ['step']"]),
    (goto_of_unknown_decision, ["goto_of_unknown_decision", "goto=", "['later']", "('approve', 'reject')"]),
    (unreachable_node, ["Write", "'second'", "name it in a route or a next=, or remove it"]),
    (endless_loop, ["Write", "'first'", "loop for ever", "next='end'"]),
    (endless_choice, ["Write", "'first'", "loop for ever"]),
    (llm_node_without_return, ["Write", "'draft'", "must return system, user and output_key"]),
    (agent_node_without_return, ["Write", "'draft'", "must return system, user and output_key"]),
    (remote_node_without_return, ["Write", "'draft'", "must return task and output_key"]),
    (trigger("cron:0 9 * *"), ["Write", "'cron:0 9 * *'", "4 fields", "'0 9 * * 1-5'"]),
    (trigger("cron:61 9 * * *"), ["Write", "'61'", "no minute", "'0 9 * * 1-5'"]),
    (trigger("cron:0 9 31 2 *"), ["Write", "'31' is no day-of-month"]),
    (trigger("event:"), ["Write", "'event:'", "event:<operator>.<type>"]),
    (trigger("request:Do it"), ["Write", "'request:Do it'", "lower-case letters, digits and _"]),
    (trigger("webhook:new lead"), ["Write", "'webhook:new lead'", "lower-case letters, digits and _"]),
    (bad_event, ["Write", "'Lead Qualified'", "write <operator>.<type>"]),
    (bad_subscription, ["Write", "'Lead Qualified'", "write <operator>.<type>"]),
    (subscription_that_fills_no_input, ["Write", "'crm.lead'", "['lettre']", "its inputs are ['letter']"]),
    (subscription_of_wrong_form, ["Listen('crm.lead')", "takes", "valid dictionary"]),
    (bad_emission, ["Write", "emits=", "'Letter Sent!'", "lower-case letters"]),
    (emissions_in_no_tuple, ["Write", "emits='letter_sent'", "write ('letter_sent',)"]),
    (subscriptions_in_no_tuple, ["Write", "listens='crm.lead'", "write ('crm.lead',)"]),
    (inputs_in_no_tuple, ["Write", "inputs='letter'", "write ('letter',)"]),
    (bad_capability, ["Write", "capability='Research!'", "pattern"]),
    (durable_for_no_time, ["@durable", "Write", "max_days=0", "between 0 and 3650"]),
    (durable_for_ever, ["@durable", "Write", "max_days=10000", "between 0 and 3650"]),
    (durable_function, ["@durable decorates a class"]),
    (durable_alone, ["Desk", "Write", "@durable", "@workflow(id=…)"]),
    (timeout_of_no_time, ["Write", "timeout=", "greater than 0"]),
    (workflow_timeout_of_no_time, ["Write", "timeout=", "greater than 0"]),
    (gate_timeout_of_no_time, ["gate_timeout_of_no_time", "timeout=", "greater than 0"]),
    (tool_without_docstring, ["Write", "'draft'", "'price'", "no docstring"]),
    (tool_without_type, ["Write", "'draft'", "'price'", "'product'", "has no type"]),
    (tool_of_any_number_of_arguments, ["Write", "'price'", "*products", "named parameters only"]),
    (tool_of_unknown_type, ["Write", "'price'", "'Product'", "import it"]),
    (tool_of_a_type_that_json_has_not, ["Write", "'price'", "JSON cannot fill"]),
    (tool_that_is_none, ["Write", "'draft'", "'price'", "use a function with types or remote_tool(…)"]),
    (tool_that_is_a_class, ["Write", "'draft'", "Registry", "use a function with types"]),
    (tool_without_a_name, ["Write", "'draft'", "partial", "use a function with types"]),
    (tool_of_unusable_name, ["Write", "'draft'", "'web.crawl'", "use letters, digits, _ and -"]),
    (two_tools_of_one_name, ["Write", "'draft'", "bear one name", "look_up"]),
    (agent_without_tools, ["@agent_node", "agent_without_tools", "tools= is empty", "@llm_node"]),
    (agent_of_no_step, ["@agent_node", "agent", "max_steps=0", "below 1"]),
    (agent_of_too_many_steps, ["Write", "'draft'", "max_steps=1000", "less than or equal to 200"]),
    (graph_beside_nodes, ["Write", "graph=", "step", "use one or the other"]),
    (graph_that_is_none, ["Write", "graph=", "no LangGraph StateGraph"]),
    (graph_that_cannot_be_compiled, ["Write", "graph=", "entrypoint"]),
    (escalation_without_timeout, ["escalation_without_timeout", "escalate_to=", "timeout="]),
    (node_named_end, ["Write", "'end'", "not 'end'"]),
    (gate_that_keeps_nothing, ["Write", "checkpointed=False", "'step'", "leave it out"]),
    (remote_work_that_keeps_nothing, ["Write", "checkpointed=False", "'step'", "leave it out"]),
    (remote_tool_that_keeps_nothing, ["Write", "checkpointed=False", "'step'", "leave it out"]),
    (remote_node_of_wrong_role, ["@remote_node", "role='Coding Agent'", "pattern"]),
    (conditional_without_routes, ["@conditional", "conditional_without_routes", "routes=", "it is empty"]),
    (conditional_with_a_route_that_is_no_function, ["@conditional", "'sales'", "function of the state"]),
    (retry_of_no_try, ["Retry", "attempts=0", "greater than or equal to 1"]),
    (field_named_like_a_rest, ["Desk.wait_duration", "another name"]),
    (node_decorated_by_nothing_known, ["Write", "retry='often'"]),
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
        "Budget",
        "Ctx",
        "Listen",
        "OpenVibeError",
        "OperatorRuntime",
        "Retry",
        "RunError",
        "SetupError",
        "ToolError",
        "agent_node",
        "conditional",
        "configure",
        "durable",
        "human_in_the_loop",
        "llm_node",
        "node",
        "operator",
        "remote_node",
        "remote_tool",
        "serve",
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


def test_describing_operators_imports_no_langgraph():
    code = "import openvibe, sys; sys.exit('langgraph' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
