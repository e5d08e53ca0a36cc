"""Long pauses between tries in this process: the run waits for a timer, and the tries are counted on."""

from __future__ import annotations

from datetime import timedelta

from openvibe import OperatorRuntime, Retry, llm_node, node, operator, workflow
from openvibe.errors import TransientModelError
from openvibe.llm.scripted import ScriptedProvider

faults: list[Exception] = []


@operator(id="mill")
class Mill:
    flour: int = 0
    text: str = ""

    @workflow(id="grind", inputs=())
    class Grind:
        @node(retry=Retry(attempts=3, pause=timedelta(minutes=2), longest=timedelta(minutes=3)))
        def grind(self, state):
            if faults:
                raise faults.pop(0)
            return {"flour": 1}

    @workflow(id="advised", inputs=())
    class Advised:
        @llm_node(model="haiku")
        def advise(self, state):
            return {"system": "You know mills.", "user": "How?", "output_key": "text"}


def test_a_step_is_tried_again_when_its_timer_has_fired() -> None:
    with OperatorRuntime() as runtime:
        runtime.register(Mill)
        faults[:] = [ValueError("stuck")]
        run = runtime.activate("mill", "grind")
        [wait] = run.open_waits
        assert (run.status, wait.kind, wait.timeout_seconds) == ("waiting", "timer", 120)

        runtime.advance(121)

        assert runtime.run(run.id).output == {"flour": 1}


def test_the_last_try_is_the_last_over_all_pauses() -> None:
    with OperatorRuntime() as runtime:
        runtime.register(Mill)
        faults[:] = [ValueError(str(number)) for number in range(5)]
        run = runtime.activate("mill", "grind")

        runtime.advance(timedelta(hours=1))

        ended = runtime.run(run.id)
        assert (ended.status, ended.error) == ("failed", "2")
        assert [wait.timeout_seconds for wait in ended.waits] == [120, 180]


def test_a_provider_that_asks_for_an_hour_gets_it() -> None:
    model = ScriptedProvider([TransientModelError("busy", 3600.0), "Slowly."])
    with OperatorRuntime(llm=model) as runtime:
        runtime.register(Mill)
        run = runtime.activate("mill", "advised")
        assert runtime.advance(3500) == []

        runtime.advance(101)

        assert runtime.run(run.id).output == {"text": "Slowly."}
        assert len(model.calls) == 2
