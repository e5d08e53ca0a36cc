"""The simulated model: the same everywhere, open about what it is, and obedient to the schemas Pydantic writes."""

import json
import os
import subprocess
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import jsonschema
import pytest
from pydantic import BaseModel, Field

from openvibe import llm
from openvibe.errors import SetupError
from openvibe.llm import LLMResponse, Tool, Turn
from openvibe.llm.simulated import SimulatedProvider


class Priority(Enum):
    LOW = "low"
    HIGH = "high"


class Flat(BaseModel):
    name: str
    amount: int
    share: float
    urgent: bool
    nothing: None


class Inner(BaseModel):
    priority: Priority
    kind: Literal["lead"]
    tone: Literal["warm", "cool"]


class Nested(BaseModel):
    first: Inner
    more: list[Inner]
    by_name: dict[str, int]
    maybe: Inner | None


class Lists(BaseModel):
    free: list[str]
    few: list[int] = Field(max_length=2)
    many: list[str] = Field(min_length=5)
    exact: list[bool] = Field(min_length=4, max_length=4)
    none: list[str] = Field(max_length=0)
    pair: tuple[int, str]
    anything: list


class Integers(BaseModel):
    between: int = Field(ge=3, le=5)
    inside: int = Field(gt=3, lt=5)
    large: int = Field(ge=1_000)
    positive: int = Field(gt=0)
    negative: int = Field(lt=0)
    small: int = Field(le=-1_000)
    one: int = Field(ge=7, le=7)


class Numbers(BaseModel):
    between: float = Field(ge=0.5, le=0.75)
    inside: float = Field(gt=0, lt=0.001)
    large: float = Field(ge=1_000)
    negative: float = Field(lt=0)
    one: float = Field(ge=0.125, le=0.125)
    money: Decimal


class Texts(BaseModel):
    short: str = Field(max_length=5)
    long: str = Field(min_length=600)
    exact: str = Field(min_length=3, max_length=3)


class Circle(BaseModel):
    shape: Literal["circle"]
    radius: float


class Square(BaseModel):
    shape: Literal["square"]
    side: float


class Choice(BaseModel):
    which: Annotated[Circle | Square, Field(discriminator="shape")]
    either: int | str
    also: str | int


class Tree(BaseModel):
    name: str
    children: list["Tree"]


class Chain(BaseModel):
    name: str
    after: "Chain | None"


class Formats(BaseModel):
    at: datetime
    on: date
    by: time
    took: timedelta
    key: UUID


class Steps(BaseModel):
    fives: int = Field(multiple_of=5)
    large: int = Field(multiple_of=1_000, ge=2_500)
    halves: float = Field(multiple_of=0.5, gt=0, le=2)
    flags: set[bool] = Field(min_length=2)
    kinds: dict[str, int] = Field(min_length=2)


#: What people write by hand or other programs make, beside what Pydantic writes.
BY_HAND: dict[str, dict[str, Any]] = {
    "several types": {"type": ["string", "null"]},
    "no type but bounds": {"minimum": 5, "maximum": 6},
    "no type but properties": {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "nothing at all": {},
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "boolean"}}, "required": ["b"]},
        ]
    },
    "definitions": {"$ref": "#/definitions/town", "definitions": {"town": {"type": "string", "maxLength": 4}}},
    "a choice with neighbours": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a", "b"],
        "anyOf": [{"properties": {"b": {"const": 3}}}],
    },
    "unique items": {
        "type": "array",
        "items": {"type": "integer", "minimum": 1, "maximum": 4},
        "minItems": 4,
        "uniqueItems": True,
    },
    "required but not described": {"type": "object", "required": ["a"]},
    "the root again": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "more": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["name"],
    },
    "itself, optional": {"type": "object", "properties": {"after": {"$ref": "#"}}},
    "e-mail": {"type": "string", "format": "email"},
}


QUESTION: dict[str, Any] = {"system": "You score leads.", "user": "Score Ada, who runs a bakery.", "model": "m"}


def ask(**options: Any) -> LLMResponse:
    return SimulatedProvider().complete(**{**QUESTION, **options})


def test_the_same_question_gets_the_same_answer_from_any_provider():
    assert ask() == ask()


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_same_answer_is_given_by_another_process(seed):
    script = (
        "import json, sys; from openvibe.llm.simulated import SimulatedProvider; "
        "print(SimulatedProvider().complete(**json.loads(sys.argv[1])).content)"
    )
    question = {**QUESTION, "schema": Nested.model_json_schema()}
    env = {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(question)], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == SimulatedProvider().complete(**question).content


@pytest.mark.parametrize("change", [{"system": "x"}, {"user": "x"}, {"model": "x"}, {"schema": {"type": "string"}}])
def test_another_question_gets_another_answer(change):
    assert ask(**change).content != ask().content


@pytest.mark.parametrize("user", ["x", "Score {everything} {0}!", "", "Ünïcode 😀 " * 50])
def test_an_answer_says_that_it_is_simulated(user):
    answer = ask(user=user)
    assert answer.simulated
    assert "imulated" in answer.content
    assert answer.cost_usd == Decimal(0)


def test_an_answer_names_the_model_that_it_stands_in_for():
    assert ask(model="simulated-haiku").model == "simulated-haiku"


@pytest.mark.parametrize("schema", [None, Nested.model_json_schema()], ids=["prose", "json"])
def test_the_words_that_were_handed_out_join_to_the_content(schema):
    words: list[str] = []
    answer = ask(schema=schema, on_words=words.append)
    assert "".join(words) == answer.content
    assert len(words) > 5


def test_no_more_words_than_asked_for_are_handed_out():
    words: list[str] = []
    answer = ask(max_tokens=4, on_words=words.append)
    assert "".join(words) == answer.content
    assert len(answer.content.split(" ")) == 4


def test_tokens_are_counted_from_the_words():
    short, long = ask(user="one two"), ask(user="one two " * 100)
    assert 0 < short.tokens_in < long.tokens_in
    assert short.tokens_out > 0


@pytest.mark.parametrize("user", [f"question {number}" for number in range(10)])
@pytest.mark.parametrize(
    "model",
    [Flat, Nested, Lists, Integers, Numbers, Texts, Choice, Tree, Chain, Formats, Steps],
    ids=lambda item: item.__name__,
)
def test_an_answer_obeys_the_schema_that_pydantic_writes(model, user):
    answer = ask(user=user, schema=model.model_json_schema())
    model.model_validate_json(answer.content)


@pytest.mark.parametrize("user", [f"question {number}" for number in range(10)])
@pytest.mark.parametrize("schema", BY_HAND.values(), ids=BY_HAND)
def test_an_answer_obeys_schemas_from_elsewhere(schema, user):
    jsonschema.validate(json.loads(ask(user=user, schema=schema).content), schema)


TOOLS = (
    Tool("weather", "The weather.", Nested.model_json_schema()),
    Tool("clock", "The time.", {"type": "object", "properties": {}}),
)


def test_each_tool_is_called_once_with_fitting_arguments_and_then_words_follow():
    history: list[Turn] = []
    for tool in TOOLS:
        answer = ask(tools=TOOLS, history=history)
        [call] = answer.tool_calls
        assert (answer.content, answer.simulated, call.name) == ("", True, tool.name)
        jsonschema.validate(call.arguments, tool.schema)
        history += [Turn("assistant", calls=(call,)), Turn("tool", "done", call_id=call.id)]
    answer = ask(tools=TOOLS, history=history)
    assert answer.tool_calls == ()
    assert "imulated" in answer.content
    assert len({turn.call_id for turn in history if turn.role == "tool"}) == 2


def test_the_same_conversation_gets_the_same_calls():
    assert ask(tools=TOOLS) == ask(tools=TOOLS)
    assert ask(tools=TOOLS).tool_calls != ask(tools=TOOLS, user="another").tool_calls


def test_a_json_answer_is_marked_simulated_in_its_texts():
    answer = json.loads(ask(schema=Flat.model_json_schema()).content)
    assert answer["name"].startswith("Simulated name")


def test_the_simulated_provider_is_found_by_its_name():
    assert isinstance(llm.provider("simulated", words_per_second=0), SimulatedProvider)


def test_an_unknown_provider_is_refused_naming_the_known_ones():
    with pytest.raises(
        SetupError, match="No model provider is called 'gpt'; use one of: simulated, anthropic, openai, ollama"
    ):
        llm.provider("gpt")
