# long: everything that passes between a run and others stands in one place
"""What passes between runs and others in a runtime: events, requests, work, context, effects, buses and models."""

import time
from datetime import timedelta

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from openvibe import (
    OperatorRuntime,
    RunError,
    SetupError,
    agent_node,
    human_in_the_loop,
    llm_node,
    loop,
    node,
    operator,
    remote_node,
    remote_tool,
    workflow,
)
from openvibe.bus.memory import MemoryBus
from openvibe.errors import BusError, InputError
from openvibe.llm import LLMResponse, ToolCall
from openvibe.llm.scripted import ScriptedProvider
from openvibe.protocol import envelope, headers
from openvibe.protocol.headers import MOST_DEPTH
from openvibe.testing import MemoryHost
from tests.unit.desks import Double, Write, desk, speakers


@pytest.fixture
def runtime():
    with OperatorRuntime(llm="simulated") as made:
        yield made


@pytest.fixture
def heard(runtime):
    """Every event that the runtime tells, words of models left out."""
    events = []
    runtime.on("*")(lambda event: events.append(event) if event.kind != "words" else None)
    return events


def test_an_emitted_event_starts_those_who_listen_after_the_steps_commit(runtime, heard):
    for cls in speakers():
        runtime.register(cls)
    run = runtime.activate("sender", "say")
    children = runtime.runs("listener")
    assert [child.trigger for child in children] == ["event:sender.begun", "event:sender.said"]
    assert [child.output for child in children] == [{"topic": "bread", "known": "bread"}, {"known": "bread"}]
    assert [(child.parent, child.depth) for child in children] == [(run.id, 1)] * 2
    names = [event.data["name"] for event in heard if event.kind == "event.emitted"]
    assert names == ["sender.begun", "sender.said"]


def test_a_circle_of_events_breaks_at_its_depth(runtime, heard):
    @workflow(id="echo", trigger="event:self.said", emits=("said",))
    class Echo:
        step = Write.draft

    runtime.register(desk(Echo))
    runtime.activate("desk", "echo")
    assert [run.depth for run in runtime.runs()] == list(range(MOST_DEPTH))
    [refused] = [event for event in heard if event.kind == "run.refused"]
    assert "recursion_depth_exceeded" in refused.data["error"]


def asking(capability="double", **options):
    @workflow(id="count")
    class Count:
        @node
        def ask(self, state, ctx):
            answer = ctx.request("desk", capability, {"amount": state["amount"]}, **options)
            return {"amount": answer["amount"] + 1}

    return Count


def test_a_request_is_answered_by_a_run_of_its_own(runtime):
    runtime.register(desk(asking(), Double))
    run = runtime.activate("desk", "count", {"amount": 20})
    assert (run.status, run.output["amount"]) == ("completed", 41)
    child = runtime.runs()[1]
    assert (child.workflow_id, child.parent, child.depth, child.trigger) == ("double", run.id, 1, "request:double")


def test_a_failed_answer_fails_the_node_that_asked(runtime):
    runtime.register(desk(asking(), Double))
    run = runtime.activate("desk", "count", {"amount": -1})
    assert (run.status, run.error) == ("failed", "Node 'ask' asked desk for double: No debts")


def test_a_request_that_nobody_serves_is_an_error_that_says_so(runtime):
    runtime.register(desk(asking("treble")))
    run = runtime.activate("desk", "count")
    assert run.status == "failed"
    assert "treble of desk was not answered" in run.error


def test_two_requests_of_one_node_get_their_own_answers(runtime):
    @workflow(id="count")
    class Count:
        @node
        def ask(self, state, ctx):
            first = ctx.request("desk", "double", {"amount": 1})["amount"]
            return {"amount": ctx.request("desk", "double", {"amount": first + 10})["amount"]}

    runtime.register(desk(Count, Double))
    run = runtime.activate("desk", "count")
    assert (run.status, run.output["amount"]) == ("completed", 24), run.error


def test_a_circle_of_requests_breaks_at_its_depth(runtime):
    @workflow(id="count", capability="double")
    class Circle:
        @node
        def ask(self, state, ctx):
            return ctx.request("desk", "double", {})

    runtime.register(desk(Circle))
    run = runtime.activate("desk", "count")
    assert run.status == "failed"
    assert "recursion_depth_exceeded" in run.error
    assert len(runtime.runs()) == MOST_DEPTH


def test_an_asking_run_waits_while_the_other_one_stands_at_a_gate(runtime):
    @workflow(id="double", capability="double")
    class Careful:
        @human_in_the_loop(prompt="Double it?")
        def review(self, state):
            return {}

        double = Double.double

    runtime.register(desk(asking(), Careful))
    run = runtime.activate("desk", "count", {"amount": 5})
    assert [wait.kind for wait in run.open_waits] == ["reply"]
    child = runtime.runs()[1]
    runtime.resume(child.id, "approve")
    assert runtime.run(run.id).output["amount"] == 11


def test_a_cancelled_answer_tells_the_asker(runtime):
    @workflow(id="double", capability="double")
    class Careful:
        @human_in_the_loop(prompt="Double it?")
        def review(self, state):
            return {}

    runtime.register(desk(asking(), Careful))
    run = runtime.activate("desk", "count")
    runtime.cancel(runtime.runs()[1].id)
    assert runtime.run(run.id).status == "failed"


def test_an_answer_that_comes_too_late_is_not_waited_for(runtime):
    @workflow(id="double", capability="double")
    class Careful:
        @human_in_the_loop(prompt="Double it?")
        def review(self, state):
            return {}

    runtime.register(desk(asking(timeout=timedelta(hours=1)), Careful))
    run = runtime.activate("desk", "count")
    runtime.advance(timedelta(hours=2))
    assert runtime.run(run.id).status == "failed"
    assert "Nobody answered" in runtime.run(run.id).error
    assert runtime.runs()[1].status == "cancelled"


def test_remote_work_is_answered_from_outside(runtime):
    @workflow(id="code")
    class Code:
        @remote_node(role="coding", timeout=timedelta(hours=2))
        def implement(self, state):
            return {"task": {"issue": state["amount"]}, "output_key": "letter"}

    runtime.register(desk(Code))
    run = runtime.activate("desk", "code", {"amount": 7})
    [wait] = run.open_waits
    assert (wait.kind, wait.payload) == ("work", {"role": "coding", "task": {"issue": 7}})
    assert runtime.answer(wait.id, result="a patch").output["letter"] == "a patch"
    with pytest.raises(RunError, match="Nobody waits"):
        runtime.answer(wait.id, result="another patch")


@pytest.mark.parametrize("way", ["error", "deadline"])
def test_remote_work_that_fails_or_never_comes_fails_the_run(runtime, way):
    @workflow(id="code")
    class Code:
        @remote_node(role="coding", timeout=timedelta(hours=2))
        def implement(self, state):
            return {"task": {}, "output_key": "letter"}

    runtime.register(desk(Code))
    run = runtime.activate("desk", "code")
    if way == "error":
        runtime.answer(run.open_waits[0].id, error="no compiler")
    else:
        runtime.advance(timedelta(hours=3))
    run = runtime.run(run.id)
    assert run.status == "failed"
    assert ("no compiler" if way == "error" else "Nobody answered") in run.error


def test_a_remote_tool_is_answered_from_outside():
    crawl = remote_tool("crawl", description="Read a page.")

    @workflow(id="read")
    class Read:
        @agent_node(tools=[crawl])
        def advise(self, state):
            return {"user": "Read it", "output_key": "letter"}

    model = ScriptedProvider([ToolCall("c1", "crawl", {"url": "x"}), "Read."])
    with OperatorRuntime(llm=model) as runtime:
        runtime.register(desk(Read))
        [wait] = runtime.activate("desk", "read").open_waits
        assert (wait.kind, wait.payload["tool"]) == ("tool", "crawl")
        assert runtime.answer(wait.id, result={"text": "hello"}).output["letter"] == "Read."


def test_an_effect_happens_once_whatever_is_played_again(runtime):
    charged = []

    @workflow(id="sell")
    class Sell:
        @node
        def charge(self, state, ctx):
            receipt = ctx.effect("charge", lambda: charged.append(1) or "r1")
            return {"letter": receipt, "amount": ctx.request("desk", "double", {"amount": 1})["amount"]}

    runtime.register(desk(Sell, Double))
    run = runtime.activate("desk", "sell")
    assert (run.output, charged) == ({"letter": "r1", "amount": 2}, [1])


class Crash(BaseException):
    """What a process dies of."""


@pytest.mark.parametrize(("decision", "calls"), [("it_happened", 1), ("it_did_not_happen", 2)])
def test_an_effect_that_broke_off_is_asked_about(runtime, decision, calls):
    charged = []

    @workflow(id="sell")
    class Sell:
        @node
        def charge(self, state, ctx):
            def call():
                charged.append(1)
                if len(charged) == 1:
                    raise Crash
                return "second"

            return {"letter": ctx.effect("charge", call)}

    runtime.register(desk(Sell))
    with pytest.raises(Crash):
        runtime.activate("desk", "sell")
    [run] = runtime.recover()
    [gate] = run.open_waits
    assert gate.decisions == ["it_happened", "it_did_not_happen"]
    values = {"result": "first"} if decision == "it_happened" else None
    run = runtime.resume(run.id, decision, values=values)
    assert (run.status, len(charged)) == ("completed", calls)
    assert run.output["letter"] == ("first" if calls == 1 else "second")


def test_a_host_of_ones_own_keeps_the_shared_context():
    host = MemoryHost()
    host.put({("content", "topic"): "salt"})

    with OperatorRuntime(host=host) as runtime:
        for cls in speakers():
            runtime.register(cls)
        runtime.activate("sender", "say")
    assert host.value("content", "topic") == "bread"


class Draft(TypedDict):
    topic: str
    letter: str


def brought():
    graph = StateGraph(Draft)
    graph.add_node("write", lambda state: {"letter": f"Dear {state['topic']}"})
    graph.add_node("review", lambda state: {"letter": interrupt({"question": "Better words?"})})
    graph.add_edge(START, "write")
    graph.add_edge("write", "review")
    graph.add_edge("review", END)
    return workflow(id="graph", graph=graph)(type("Graph", (), {}))


def test_a_langgraph_graph_pauses_and_goes_on(runtime):
    runtime.register(desk(brought()))
    run = runtime.activate("desk", "graph", {"topic": "baker"})
    [gate] = run.open_waits
    assert (gate.prompt, gate.decisions) == ("Better words?", ["answer"])
    with pytest.raises(InputError, match="answer: is required"):
        runtime.resume(run.id, "answer")
    run = runtime.resume(run.id, "answer", values={"answer": "Dear Ada"})
    assert run.output == {"topic": "baker", "letter": "Dear Ada"}


def test_emitted_events_go_out_on_the_bus():
    bus, heard = MemoryBus(), []

    async def hear(message):
        heard.append((message.subject, envelope.loads(message.data)["payload"], message.headers["CG-Recursion-Depth"]))

    async def listen():
        await bus.connect()
        await bus.subscribe("operators.*.events.>", hear)

    loop.run(listen(), timeout=10)
    with OperatorRuntime(bus=bus) as runtime:
        runtime.register(speakers()[0])
        runtime.activate("sender", "say")
    assert heard == [
        ("operators.sender.events.begun", {"topic": "bread"}, "0"),
        ("operators.sender.events.said", {}, "0"),
    ]


def test_what_goes_out_says_how_deep_its_run_stands_and_in_which_trace():
    @operator(id="asker")
    class Asker:
        amount: int = 0

        @workflow(id="count", emits=("counted",))
        class Count:
            @node
            def ask(self, state, ctx):
                return ctx.request("abacus", "double", {"amount": state["amount"]})

    bus, heard = MemoryBus(), []

    async def hear(message):
        heard.append((message.headers["CG-Recursion-Depth"], message.headers["traceparent"]))
        return b'{"amount": 8}'

    async def listen():
        await bus.connect()
        await bus.serve("operators.abacus.request.double", hear)
        await bus.subscribe("operators.asker.events.>", hear)

    loop.run(listen(), timeout=10)
    with OperatorRuntime(bus=bus) as runtime:
        runtime.register(Asker)
        run = runtime.activate("asker", "count", {"amount": 4})
    assert run.output == {"amount": 8}
    assert heard == [("0", headers.trace_of(run.id))] * 2


def test_what_comes_in_goes_on_in_its_trace_and_out_of_it_again():
    @operator(id="desk")
    class Desk:
        amount: int = 0

        @workflow(id="double", trigger="request:double", emits=("doubled",))
        class Double:
            @node
            def double(self, state):
                return {"amount": 2 * state["amount"]}

        @workflow(id="hear", trigger="event:far.counted", emits=("heard",))
        class Hear:
            @node
            def hear(self, state):
                return {}

        @workflow(id="gossip", trigger="event:self.heard")
        class Gossip:
            @node
            def gossip(self, state):
                return {}

    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    passed_on = {"tracestate": "rojo=1", "CG-User-ID": "eve"}
    bus, said = MemoryBus(), {}

    async def hear(message):
        if message.subject.startswith("operators.desk."):
            said[message.subject] = message.headers

    async def speak():
        await bus.connect()
        await bus.subscribe("operators.*.events.>", hear)
        stamps = {"traceparent": trace, "CG-Recursion-Depth": "3", **passed_on}
        await bus.request("operators.desk.request.double", b'{"amount": 1}', timeout=10, headers=stamps)
        await bus.publish("operators.far.events.counted", b"{}", headers=stamps)

    with OperatorRuntime(bus=bus) as runtime:
        runtime.register(Desk)
        runtime.open_doors()
        loop.run(speak(), timeout=20)
        deadline = time.monotonic() + 10
        while len(said) < 2 or len(runtime.runs()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        runs = {run.workflow_id: run for run in runtime.runs()}
    assert {name: run.depth for name, run in runs.items()} == {"double": 4, "hear": 4, "gossip": 5}
    assert [(run.trace, run.passed_on) for run in runs.values()] == [(trace, passed_on)] * 3
    for stamps in said.values():
        assert (stamps["traceparent"], headers.passed_on(stamps), stamps["CG-Recursion-Depth"]) == (
            trace,
            passed_on,
            "4",
        )


def test_two_runtimes_on_one_bus_hear_and_ask_each_other():
    @operator(id="asker")
    class Asker:
        amount: int = 0

        @workflow(id="count", emits=("counted",))
        class Count:
            @node
            def ask(self, state, ctx):
                return ctx.request("desk", "double", {"amount": state["amount"]})

    @workflow(id="hear", trigger="event:asker.counted")
    class Hear:
        @node
        def note(self, state):
            return {"letter": f"counted to {state['amount']}"}

    bus = MemoryBus()
    with OperatorRuntime(bus=bus) as one, OperatorRuntime(bus=bus) as two:
        one.register(desk(Double, Hear))
        two.register(Asker)
        one.open_doors()
        run = two.activate("asker", "count", {"amount": 4})
        assert (run.status, run.output) == ("completed", {"amount": 8}), run.error
        deadline = time.monotonic() + 10
        while len(one.runs()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [(item.trigger, item.depth) for item in one.runs()] == [
            ("request:double", 1),
            ("event:asker.counted", 1),
        ]
        assert two.runs() == [run]


def test_a_runtime_reads_no_envelope_of_a_version_that_it_does_not_know(caplog):
    @workflow(id="hear", trigger="event:far.counted")
    class Hear:
        @node
        def note(self, state):
            return {"letter": str(state["amount"])}

    bus, unknown, known = MemoryBus(), b'{"version": "7", "payload": {"amount": 1}}', b'{"payload": {"amount": 2}}'

    async def speak():
        for body in (unknown, known):
            await bus.publish("operators.far.events.counted", body)
        return await bus.request("operators.desk.request.double", unknown, timeout=10)

    with OperatorRuntime(bus=bus) as runtime:
        runtime.register(desk(Double, Hear))
        runtime.open_doors()
        answer = loop.run(speak(), timeout=20)
        deadline = time.monotonic() + 10
        while not runtime.runs() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [run.trigger for run in runtime.runs()] == ["event:far.counted"]
    assert (answer.error.code, "version: '7'" in answer.error.description) == ("400", True)
    assert "version: '7'" in caplog.text


class AsyncModel:
    """A provider of somebody's own, asynchronous and with the least that one takes."""

    name = "own"

    async def complete(self, system, user, model, max_tokens=4096):
        return LLMResponse(f"{model} heard {user}", 1, 1, model, 0)


def test_a_provider_of_ones_own_may_be_asynchronous():
    @workflow(id="write")
    class Asks:
        @llm_node(model="tiny")
        def speak(self, state):
            return {"user": "me", "output_key": "letter"}

    with OperatorRuntime(llm=AsyncModel()) as runtime:
        runtime.register(desk(Asks))
        assert runtime.activate("desk", "write").output == {"letter": "tiny heard me"}


@pytest.mark.parametrize("option", ["llm", "bus", "scheduler"])
def test_a_name_that_is_not_known_is_refused(option):
    with pytest.raises(SetupError, match="use one of"):
        OperatorRuntime(**{option: "parrot"})


def test_what_is_registered_is_listed(runtime):
    runtime.register(desk(Write))
    [listed] = runtime.list_operators()
    assert listed["id"] == "desk"
    assert listed["workflows"] == [{"id": "write", "name": "Write", "trigger": "on_demand", "trigger_id": "write"}]
    with pytest.raises(SetupError, match="registered already"):
        runtime.register(desk(Write))


class Telegraph:
    """A bus of somebody's own, whose only method is a plain function."""

    def __init__(self):
        self.sent = []

    def publish(self, subject, data, headers=None):
        self.sent.append((subject, envelope.loads(data)["payload"]))


def test_a_bus_of_ones_own_may_be_plain_and_only_send(caplog):
    telegraph = Telegraph()
    with OperatorRuntime(bus=telegraph) as runtime:
        runtime.register(speakers()[0])
        assert runtime.activate("sender", "say").status == "completed"
    assert telegraph.sent == [
        ("operators.sender.events.begun", {"topic": "bread"}),
        ("operators.sender.events.said", {}),
    ]
    assert "are not heard" in caplog.text


class Down(MemoryBus):
    """A bus that nobody answers."""

    async def connect(self):
        raise BusError("nobody answers")


def test_a_bus_that_is_down_loses_events_and_no_run(caplog):
    with OperatorRuntime(bus=Down()) as runtime:
        for cls in speakers():
            runtime.register(cls)
        assert runtime.activate("sender", "say").status == "completed"
        assert len(runtime.runs("listener")) == 2
    assert "nobody answers" in caplog.text
