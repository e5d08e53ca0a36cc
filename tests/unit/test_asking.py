"""Asking a model: the form of the question, the further tries, and what is told about each of them."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import pytest

from openvibe.errors import Backoff, ModelError, TransientModelError, WrongUpdate
from openvibe.events import Usage
from openvibe.llm import LLMResponse, Tool, ToolCall, Turn, asking
from openvibe.llm.scripted import ScriptedProvider
from openvibe.specs import ModelSpec

AT_ONCE = 0.001


@dataclass
class Scripted:
    """A provider that answers from a script, one item a call; an item that is an error is raised."""

    script: list[str | Exception]
    name: str = "scripted"
    calls: list[dict[str, Any]] = field(default_factory=list)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def complete(
        self,
        *,
        system: str,
        user: str,
        model: str,
        max_tokens: int = 4096,
        temperature: float | None = None,
        schema: Mapping[str, Any] | None = None,
        on_words: Callable[[str], None] | None = None,
    ) -> LLMResponse:
        self.calls.append(
            {
                "system": system,
                "user": user,
                "model": model,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "schema": schema,
            }
        )
        item = self.script.pop(0)
        if isinstance(item, Exception):
            raise item
        if on_words:
            on_words(item)
        return LLMResponse(item, tokens_in=10, tokens_out=5, model=model, cost_usd=Decimal("0.01"))


@dataclass
class Notebook:
    """A listener that writes everything down."""

    said: list[str] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)

    def words(self, text: str) -> None:
        self.said.append(text)

    def usage(self, usage: Usage) -> None:
        self.usages.append(usage)

    def attempt_failed(self, *, attempt: int, attempts: int, error: str, pause: float) -> None:
        self.failed.append({"attempt": attempt, "attempts": attempts, "error": error, "pause": pause})

    def calling(self) -> AbstractContextManager[None]:
        return nullcontext()


def ask(provider: Scripted, listener: Notebook, *, types: Mapping[str, Any] | None = None, **options: Any) -> dict:
    returned = {"system": "You score leads.", "user": "Score Ada.", **options.pop("returned", {"output_key": "letter"})}
    spec = ModelSpec(**{"model": "haiku", "attempts": 3, **options})
    return asking.ask(
        asking.Question.read("score", returned),
        node="score",
        spec=spec,
        model=spec.model,
        types=types or {"letter": str, "amount": int},
        provider=provider,
        listener=listener,
    )


SCORE = {"output_keys": {"score": int, "tone": Literal["warm", "cool"]}}


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


def test_a_text_answer_goes_to_its_field_as_it_is(notebook):
    provider = Scripted(["  ```hello```  "])
    assert ask(provider, notebook) == {"letter": "  ```hello```  "}
    assert provider.calls[0]["schema"] is None


def test_a_question_reaches_the_provider_with_all_that_its_node_said(notebook):
    provider = Scripted(["hello"])
    ask(provider, notebook, max_tokens=77, temperature=0.5)
    [call] = provider.calls
    assert call == {
        "system": "You score leads.",
        "user": "Score Ada.",
        "model": "haiku",
        "max_tokens": 77,
        "temperature": 0.5,
        "schema": None,
    }


@pytest.mark.parametrize(
    ("name", "model", "exact"),
    [
        ("anthropic", "haiku", "claude-haiku-4-5-20251001"),
        ("anthropic", "claude-next", "claude-next"),
        ("simulated", "haiku", "simulated-haiku"),
        ("scripted", "haiku", "haiku"),
    ],
)
def test_an_alias_becomes_the_providers_exact_model(notebook, name, model, exact):
    provider = Scripted(["hello"], name=name)
    ask(provider, notebook, model=model)
    assert provider.calls[0]["model"] == exact


def test_words_are_passed_on_as_they_arrive(notebook):
    ask(Scripted(["hello"]), notebook)
    assert notebook.said == ["hello"]


def test_a_json_answer_is_asked_for_by_its_schema(notebook):
    provider = Scripted(['{"score": 7, "tone": "warm"}'])
    assert ask(provider, notebook, returned=SCORE, output_format="json") == {"score": 7, "tone": "warm"}
    schema = provider.calls[0]["schema"]
    assert schema["required"] == ["score", "tone"]
    assert schema["properties"]["score"]["type"] == "integer"
    assert schema["properties"]["tone"]["enum"] == ["warm", "cool"]


def test_a_single_json_field_is_asked_for_in_the_type_of_its_state_field(notebook):
    provider = Scripted(['{"amount": 7}'])
    assert ask(provider, notebook, returned={"output_key": "amount"}, output_format="json") == {"amount": 7}
    assert provider.calls[0]["schema"]["properties"]["amount"]["type"] == "integer"


@pytest.mark.parametrize(
    "content",
    [
        '```json\n{"score": 7, "tone": "warm"}\n```',
        '```\n{"score": 7, "tone": "warm"}\n```',
        '\n ```json\n{"score": 7,\n "tone": "warm"}\n``` \n',
    ],
)
def test_a_code_fence_around_json_is_stripped(notebook, content):
    assert ask(Scripted([content]), notebook, returned=SCORE, output_format="json") == {"score": 7, "tone": "warm"}
    assert notebook.failed == []


def test_an_answer_that_does_not_fit_is_shown_to_the_model_again_with_its_fault(notebook):
    provider = Scripted(['{"score": "high", "tone": "warm"}', '{"score": 7, "tone": "warm"}'])
    assert ask(provider, notebook, returned=SCORE, output_format="json") == {"score": 7, "tone": "warm"}
    again = provider.calls[1]["user"]
    assert again.startswith("Score Ada.")
    assert '{"score": "high", "tone": "warm"}' in again
    assert "score: Input should be a valid integer" in again


def test_only_the_last_misfit_is_shown_again(notebook):
    provider = Scripted(["first", "second", '{"score": 7, "tone": "warm"}'])
    ask(provider, notebook, returned=SCORE, output_format="json")
    assert "second" in provider.calls[2]["user"]
    assert "first" not in provider.calls[2]["user"]


def test_a_misfit_is_told_and_tried_again_without_a_pause(notebook):
    ask(Scripted(["no json", '{"score": 7, "tone": "warm"}']), notebook, returned=SCORE, output_format="json")
    [told] = notebook.failed
    assert (told["attempt"], told["attempts"], told["pause"]) == (1, 3, 0.0)
    assert told["error"].startswith("The answer does not fit: the whole: Invalid JSON")


def test_usage_is_counted_for_answers_that_do_not_fit_too(notebook):
    ask(Scripted(["no json", '{"score": 7, "tone": "warm"}']), notebook, returned=SCORE, output_format="json")
    one = Usage(model="haiku", provider="scripted", tokens_in=10, tokens_out=5, cost_usd=Decimal("0.01"))
    assert notebook.usages == [one, one]


def test_no_usage_is_counted_for_a_call_that_failed(notebook):
    ask(Scripted([TransientModelError("busy", AT_ONCE), "hello"]), notebook)
    assert len(notebook.usages) == 1


def test_the_limit_of_attempts_ends_in_an_error_that_names_node_model_and_last_fault(notebook):
    provider = Scripted(["one", "two", "three", '{"score": 7, "tone": "warm"}'])
    with pytest.raises(ModelError, match=r"Node 'score' asked haiku 3 times: The answer does not fit") as caught:
        ask(provider, notebook, returned=SCORE, output_format="json")
    assert not isinstance(caught.value, TransientModelError)
    assert len(provider.calls) == 3
    assert [told["attempt"] for told in notebook.failed] == [1, 2]


def test_a_fallback_gives_the_update_when_no_answer_fitted(notebook):
    returned = {**SCORE, "fallback": lambda content: {"score": 0, "tone": content}}
    assert ask(Scripted(["one", "two"]), notebook, returned=returned, output_format="json", attempts=2) == {
        "score": 0,
        "tone": "two",
    }


def test_a_fallback_is_not_asked_when_an_answer_fits(notebook):
    returned = {**SCORE, "fallback": lambda content: {"score": 0}}
    provider = Scripted(['{"score": 7, "tone": "warm"}'])
    assert ask(provider, notebook, returned=returned, output_format="json")["score"] == 7


def test_a_fallback_is_not_asked_when_there_was_no_answer_at_all(notebook):
    returned = {**SCORE, "fallback": lambda content: {"score": 0}}
    provider = Scripted([TransientModelError("busy", AT_ONCE)] * 2)
    with pytest.raises(ModelError, match="2 times: busy"):
        ask(provider, notebook, returned=returned, output_format="json", attempts=2)


def test_a_transient_error_is_tried_again_after_the_pause_that_the_provider_asked_for(notebook):
    provider = Scripted([TransientModelError("busy", 0.003), TransientModelError("still busy", 0.002), "hello"])
    assert ask(provider, notebook) == {"letter": "hello"}
    assert notebook.failed == [
        {"attempt": 1, "attempts": 3, "error": "busy", "pause": 0.003},
        {"attempt": 2, "attempts": 3, "error": "still busy", "pause": 0.002},
    ]


def test_a_transient_error_without_advice_waits_for_between_half_and_all_of_the_first_pause(notebook):
    ask(Scripted([TransientModelError("busy"), "hello"]), notebook)
    assert asking.FIRST_PAUSE / 2 <= notebook.failed[0]["pause"] <= asking.FIRST_PAUSE


def test_a_transient_error_puts_the_same_question_again(notebook):
    provider = Scripted([TransientModelError("busy", AT_ONCE), "hello"])
    ask(provider, notebook)
    assert provider.calls[0] == provider.calls[1]


def test_an_error_that_will_not_pass_is_not_tried_again(notebook):
    provider = Scripted([ModelError("no such model"), "hello"])
    with pytest.raises(ModelError, match="no such model"):
        ask(provider, notebook)
    assert len(provider.calls) == 1
    assert notebook.failed == []


def test_a_single_attempt_tells_of_no_other(notebook):
    with pytest.raises(ModelError, match="1 times: busy"):
        ask(Scripted([TransientModelError("busy", 60)]), notebook, attempts=1)
    assert notebook.failed == []


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("a prompt", "returned str; return system, user and output_key"),
        (None, "returned NoneType"),
        ({"user": "x", "output_key": "a", "promt": "y"}, r"returned \['promt'\]"),
        ({"user": "x"}, "must return `user` and one of"),
        ({"output_key": "letter"}, "must return `user` and one of"),
        ({"user": "x", "output_key": "a", "output_keys": {"b": int}}, "must return `user` and one of"),
    ],
)
def test_a_question_of_another_form_is_refused_naming_the_node(returned, told):
    with pytest.raises(WrongUpdate, match=rf"Node 'score' {told}"):
        asking.Question.read("score", returned)


def test_a_question_needs_no_system_text():
    assert asking.Question.read("score", {"user": "Hi", "output_key": "letter"}).system == ""


def test_nested_types_come_back_as_plain_data(notebook):
    provider = Scripted([json.dumps({"scores": {"Ada": [1, 2]}})])
    returned = {"output_keys": {"scores": dict[str, list[int]]}}
    assert ask(provider, notebook, returned=returned, output_format="json") == {"scores": {"Ada": [1, 2]}}


def test_a_provider_may_give_the_aliases_another_meaning(notebook):
    provider = Scripted(["hello"], name="anthropic")
    provider.aliases = {"haiku": "claude-house"}
    ask(provider, notebook)
    assert provider.calls[0]["model"] == "claude-house"


def test_a_pause_of_a_minute_is_honoured_to_the_second():
    assert asking._pause(1, TransientModelError("busy", 60.0)) == 60.0


def test_a_longer_pause_than_a_step_should_wait_is_told_and_left_to_the_run(notebook):
    provider = Scripted([TransientModelError("busy", 61.0), "hello"])
    with pytest.raises(Backoff, match="busy") as caught:
        ask(provider, notebook)
    assert caught.value.seconds == 61.0
    assert len(provider.calls) == 1
    assert notebook.failed == [{"attempt": 1, "attempts": 3, "error": "busy", "pause": 61.0}]


def test_an_answer_that_was_cut_off_is_told_as_such(notebook):
    ask(
        Scripted(['{"score": 7,', '{"score": 7, "tone": "warm"}']),
        notebook,
        returned=SCORE,
        output_format="json",
        max_tokens=5,
    )
    assert notebook.failed[0]["error"].endswith("it was cut off at max_tokens=5")


def test_a_model_that_spends_its_limit_before_the_first_word_is_told_apart(notebook):
    with pytest.raises(ModelError, match="haiku used up max_tokens=5 before its first word; raise it"):
        ask(Scripted([" "]), notebook, max_tokens=5)
    assert len(notebook.usages) == 1


CLOCK = Tool("clock", "The time.", {"type": "object", "properties": {}})


def converse(provider: Any, listener: Notebook, **options: Any) -> LLMResponse:
    spec = ModelSpec(model="haiku", attempts=3, max_tokens=77, temperature=0.5)
    question = {"system": "You help.", "user": "What time is it?", **options}
    return asking.converse(node="helper", spec=spec, model="smart", provider=provider, listener=listener, **question)


def test_a_turn_of_a_conversation_reaches_the_provider_whole(notebook):
    provider = ScriptedProvider(["Noon."], name="openai")
    history = [Turn("assistant", calls=(ToolCall("c1", "clock"),)), Turn("tool", "12:00", call_id="c1")]
    response = converse(provider, notebook, history=history, tools=[CLOCK])
    assert response.content == "Noon."
    [call] = provider.calls
    assert (call.system, call.user, call.model) == ("You help.", "What time is it?", "o3")
    assert (call.max_tokens, call.temperature, call.schema) == (77, 0.5, None)
    assert (call.history, call.tools) == (tuple(history), (CLOCK,))


def test_a_turn_may_be_tool_calls_without_a_word(notebook):
    call = ToolCall("c1", "clock")
    assert converse(ScriptedProvider([call]), notebook, tools=[CLOCK]).tool_calls == (call,)


def test_a_turns_words_and_usage_are_told(notebook):
    converse(ScriptedProvider(["Noon."]), notebook, tools=[CLOCK])
    assert notebook.said == ["Noon."]
    assert [usage.tokens_in for usage in notebook.usages] == [10]


def test_a_turn_is_tried_again_and_told_like_any_question(notebook):
    provider = ScriptedProvider([TransientModelError("busy", AT_ONCE), "Noon."])
    assert converse(provider, notebook, tools=[CLOCK]).content == "Noon."
    assert notebook.failed == [{"attempt": 1, "attempts": 3, "error": "busy", "pause": AT_ONCE}]
    with pytest.raises(ModelError, match="Node 'helper' asked smart 3 times: busy"):
        converse(ScriptedProvider([TransientModelError("busy", AT_ONCE)] * 3), notebook)


def test_an_error_of_the_listener_is_not_tried_again():
    class Stopped(Exception):
        pass

    class Impatient(Notebook):
        def words(self, text: str) -> None:
            raise Stopped

    provider = ScriptedProvider(["Noon.", "One."])
    with pytest.raises(Stopped):
        converse(provider, Impatient())
    assert len(provider.calls) == 1
