"""State fields: what a node may write, what a start may bring, and what a form is told about both."""

from datetime import date
from typing import Annotated, Literal

import pytest
from pydantic import Field

from openvibe.errors import InputError, RunError, WrongUpdate
from openvibe.fields import Fields, check_input


class Owner:
    name: str
    amount: int = 1
    tags: list[str] = []
    tone: Annotated[Literal["warm", "cool"], Field(title="Tone", description="How it sounds")] = "warm"
    due: date | None = None
    _private: int = 0


@pytest.fixture
def fields() -> Fields:
    return Fields(Owner)


@pytest.fixture
def model(fields):
    return fields.model("greet input", ("name", "amount", "tone", "due"))


def test_annotated_attributes_are_fields_and_private_ones_are_not(fields):
    assert list(fields.types) == ["name", "amount", "tags", "tone", "due"]


def test_only_fields_with_a_value_have_a_default(fields):
    assert fields.defaults == {"amount": 1, "tags": [], "tone": "warm", "due": None}


def test_a_default_that_is_changed_in_place_stays_as_declared(fields):
    fields.defaults["tags"].append("leak")
    assert fields.defaults["tags"] == []
    assert Owner.tags == []


def test_an_update_comes_back_in_the_types_of_its_fields(fields):
    assert fields.check_update("n", {"amount": "3", "due": "2026-02-16"}) == {"amount": 3, "due": date(2026, 2, 16)}


def test_no_update_is_an_empty_update(fields):
    assert fields.check_update("n", None) == {}


def test_a_node_that_returns_no_mapping_fails_naming_node_and_remedy(fields):
    with pytest.raises(WrongUpdate, match=r"Node 'research' returned list; return a dict of state fields, or None"):
        fields.check_update("research", ["x"])


def test_a_node_that_writes_an_undeclared_field_fails_naming_node_and_field(fields):
    with pytest.raises(WrongUpdate, match=r"Node 'research' wrote 'nmae', which is no state field .*declare `nmae: <"):
        fields.check_update("research", {"nmae": "Ada"})


def test_a_node_that_writes_a_wrong_type_fails_naming_node_field_value_and_type(fields):
    with pytest.raises(WrongUpdate, match=r"Node 'research' wrote 'many' to 'amount', which takes int: .*integer"):
        fields.check_update("research", {"amount": "many"})


def test_a_private_attribute_cannot_be_written(fields):
    with pytest.raises(WrongUpdate, match="'_private'"):
        fields.check_update("research", {"_private": 1})


def test_a_long_wrong_value_is_shortened_in_the_message(fields):
    with pytest.raises(WrongUpdate) as caught:
        fields.check_update("research", {"amount": "x" * 10_000})
    assert len(str(caught.value)) < 300


def test_input_that_fits_comes_back_without_the_fields_that_were_not_given(model):
    assert check_input(model, {"name": "Ada"}) == {"name": "Ada"}


def test_missing_input_is_named_with_its_type(model):
    with pytest.raises(InputError) as caught:
        check_input(model, {})
    assert caught.value.problems == [{"field": "name", "type": "str", "message": "is required (str)"}]
    assert str(caught.value) == "name: is required (str)"


def test_unknown_input_is_named_together_with_what_is_known(model):
    with pytest.raises(InputError) as caught:
        check_input(model, {"name": "Ada", "tags": ["x"]})
    assert [problem["field"] for problem in caught.value.problems] == ["tags"]
    assert "its inputs are: name, amount, tone, due" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "field", "kind"),
    [
        ({"amount": "many"}, "amount", "int"),
        ({"tone": "loud"}, "tone", "Literal['warm', 'cool']"),
        ({"due": "soon"}, "due", "datetime.date | None"),
    ],
)
def test_input_of_a_wrong_type_is_named_with_field_and_type(model, given, field, kind):
    with pytest.raises(InputError) as caught:
        check_input(model, {"name": "Ada", **given})
    [problem] = caught.value.problems
    assert problem["field"].split(".")[0] == field
    assert problem["type"] == kind
    assert f"takes {kind}" in problem["message"]


def test_every_problem_of_an_input_is_named_at_once(model):
    with pytest.raises(InputError) as caught:
        check_input(model, {"amount": "many", "nmae": "Ada"})
    assert {problem["field"] for problem in caught.value.problems} == {"name", "amount", "nmae"}


def test_a_misfit_is_the_runs_fault_and_not_the_authors():
    assert issubclass(InputError, RunError)
    assert issubclass(WrongUpdate, RunError)


def test_the_schema_labels_fields_and_refuses_others(model):
    schema = model.model_json_schema()
    assert schema["title"] == "greet input"
    assert schema["required"] == ["name"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["tone"] == {
        "title": "Tone",
        "description": "How it sounds",
        "default": "warm",
        "enum": ["warm", "cool"],
        "type": "string",
    }
    assert schema["properties"]["amount"] == {"title": "Amount", "type": "integer", "default": 1}
