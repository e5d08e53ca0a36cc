"""Secrets show nowhere: not in events, errors, tracebacks nor in a model's words."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import orjson
import pytest

from openvibe.bus.memory import MemoryBus
from operators.link import link
from operators.models import Checkpoint, Event
from operators.services import masking, timeline
from operators.services.masking import MASK, Masker
from operators.services.words import GATHER, Words
from tests.domain.lab import played, started, thread

SECRET = "sk-live-0123456789"


@pytest.fixture
def secret(settings):
    """A server that has this in one of its environment's keys, and masks whatever looks like a card number."""
    chosen = dataclasses.replace(settings.OPENVIBE, secrets=(SECRET, "password"), masked=(r"\b\d{4}-\d{4}\b",))
    settings.OPENVIBE = chosen
    masking.masker.cache_clear()
    yield SECRET
    masking.masker.cache_clear()


def test_values_and_what_patterns_fit_are_masked_wherever_they_stand():
    masker = Masker.of(["hush-hush", "hush-hush-hush"], [r"\d{4}-\d{4}"])

    assert masker.value({"a hush-hush": ["1234-5678", {"b": "x hush-hush-hush y"}], "n": 7, "none": None}) == {
        f"a {MASK}": [MASK, {"b": f"x {MASK} y"}], "n": 7, "none": None,
    }  # fmt: skip


def test_a_secret_of_special_characters_is_taken_literally():
    masker = Masker.of(['a.*(b"c\\'], [])

    assert masker.text('say a.*(b"c\\ and axx(b"c') == f'say {MASK} and axx(b"c'


def test_nothing_is_masked_where_there_are_no_secrets():
    assert Masker.of([], []).value({"a": "b"}) == {"a": "b"}


def test_a_failed_run_tells_which_step_and_try_and_no_secret(lab, while_playing, secret):
    def break_down():
        raise ValueError(f"cannot sign in with {secret}")

    while_playing(break_down)
    run = played(started(lab, "meddled"))

    assert run.error["message"] == f"cannot sign in with {MASK}"
    assert "break_down" in run.error["traceback"]
    assert (run.error["node"], run.error["attempt"]) == ("meddle", 1)
    assert run.error["step_id"] == thread(run).get(kind="step.failed").step_id
    told = orjson.dumps([run.error, *thread(run).values_list("data", flat=True)]).decode()
    assert secret not in told
    assert thread(run).get(kind="step.failed").data["error"] == run.error["message"]


def test_the_state_itself_keeps_what_nodes_wrote(lab, secret):
    run = played(started(lab, "four", text=f"key {secret}"))

    assert run.output["text"] == f"key {secret}"
    assert thread(run).get(kind="run.completed").data["output"]["text"] == f"key {MASK}"
    assert Checkpoint.objects.filter(thread_id=run.id).exists()


@pytest.mark.django_db(transaction=True)
def test_a_secret_that_a_model_says_in_pieces_is_not_sent_in_pieces(lab, secret):
    heard: list[str] = []
    bus = MemoryBus()

    async def hear(message):
        heard.append(orjson.loads(message.data)["content"])

    async def opened():
        await bus.connect()
        await bus.subscribe("cg.>", hear)

    asyncio.run(opened())
    link.use(bus)
    words = Words(started(lab, "four"))

    for piece in ("The key is ", secret[:5], secret[5:9], secret[9:], ", keep it. sk"):
        time.sleep(GATHER)
        words.add(node="one", step_id="s", text=piece)
    words.flush()

    deadline = time.monotonic() + 5
    while "".join(heard) != f"The key is {MASK}, keep it. sk":
        assert time.monotonic() < deadline, heard
        time.sleep(0.01)
    assert len(heard) >= 3


def test_a_steps_words_have_a_beginning_and_an_end(lab):
    bus, frames = MemoryBus(), []

    async def hear(message):
        frames.append(orjson.loads(message.data))

    async def opened():
        await bus.connect()
        await bus.subscribe("cg.v1.*.*.str.>", hear)

    asyncio.run(opened())
    link.use(bus)
    run = started(lab, "four")
    words = Words(run)
    for step, text in (("s1", "one "), ("s1", "two"), ("s2", "three")):
        words.add(node="one", step_id=step, text=text)
    words.flush()
    words.flush()

    deadline = time.monotonic() + 5
    while [frame["chunk_type"] for frame in frames].count("end") < 2:
        assert time.monotonic() < deadline, frames
        time.sleep(0.01)
    said = [(frame["step_id"], frame["chunk_type"], frame["content"]) for frame in frames]
    assert said[0] == ("s1", "start", "")
    assert "".join(text for step, _, text in said if step == "s1") == "one two"
    assert said[-3:] == [("s2", "start", ""), ("s2", "content", "three"), ("s2", "end", "")]
    assert all(frame["agent_turn_id"] == f"{run.id}-0" for frame in frames)


def test_masking_an_event_costs_little_beside_its_commit(project):
    masker = Masker.of([f"secret-number-{number:020}" for number in range(20)], [r"sk-\w{10,}"])
    data = {"update": {"letter": "words " * 300, "scores": list(range(20))}, "usage": {"model": "haiku", "calls": 1}}
    began = time.perf_counter()
    for _ in range(200):
        masker.value(data)
    masking_took = (time.perf_counter() - began) / 200

    assert masking_took < 0.001, f"{masking_took * 1e6:.0f} µs an event"


def test_a_fact_that_is_only_noted_is_masked_too(lab, secret):
    run = started(lab, "four")
    timeline.note(run.id, timeline.Fact("agent.message", data={"text": f"{secret} 1234-5678"}))

    assert Event.objects.get(kind="agent.message").data == {"text": f"{MASK} {MASK}"}
