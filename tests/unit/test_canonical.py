"""Canonical JSON against the examples of RFC 8785, and the reduction of foreign values to JSON types."""

import hashlib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import IntEnum, StrEnum
from uuid import UUID

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from openvibe import canonical


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Lead(BaseModel):
    name: str
    since: date


@dataclass
class Point:
    x: int


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


def test_the_example_of_rfc_8785_hashes_as_its_canonical_text():
    # RFC 8785 §3.2.2 and §3.2.3.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '\u20ac$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    text = (
        '{"literals":[null,true,false],'
        '"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical.sha256(value) == hashed(text)


def test_keys_are_sorted_by_their_utf_16_code_units():
    # RFC 8785 §3.2.3: the smiley's surrogates sort before U+FB33.
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    text = '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"😀":5,"\ufb33":3}'
    assert canonical.sha256(value) == hashed(text)


def test_the_order_of_keys_does_not_change_the_hash():
    assert canonical.sha256({"a": 1, "b": {"c": 2, "d": 3}}) == canonical.sha256({"b": {"d": 3, "c": 2}, "a": 1})


def test_the_order_of_a_list_changes_the_hash():
    assert canonical.sha256([1, 2]) != canonical.sha256([2, 1])


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (295147905179352830000.0, "295147905179352830000"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e23, "1e+23"),
        (333333333.33333325, "333333333.33333325"),
        (2**53 - 1, "9007199254740991"),
    ],
)
def test_numbers_are_written_as_rfc_8785_appendix_b_says(number, text):
    assert canonical.sha256(number) == hashed(text)


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**53 + 1, 10**30])
def test_an_integer_without_an_exact_json_number_becomes_text(number):
    assert canonical.jsonable(number) == str(number)
    assert canonical.sha256(number) == hashed(f'"{number}"')


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, [2]), [1, [2]]),
        ({1: {2: 3}}, {"1": {"2": 3}}),
        (date(2026, 2, 16), "2026-02-16"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Point(2), {"x": 2}),
        (Lead(name="Ada", since=date(2026, 2, 16)), {"name": "Ada", "since": "2026-02-16"}),
        ({"b", "a", "c"}, ["a", "b", "c"]),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (True, True),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (b"x", "b'x'"),
        (1j, "1j"),
    ],
)
def test_a_value_is_reduced_to_plain_json(value, plain):
    assert canonical.jsonable(value) == plain


def test_foreign_values_are_reduced_at_any_depth():
    assert canonical.jsonable({"leads": [Lead(name="Ada", since=date(2026, 2, 16))]}) == {
        "leads": [{"name": "Ada", "since": "2026-02-16"}]
    }


@pytest.mark.parametrize(
    ("text", "kept"),
    [("a\0b", "a\N{REPLACEMENT CHARACTER}b"), ("a\ud800b", "a?b"), ("né ☃ 😀", "né ☃ 😀")],
    ids=["NUL", "half a character", "whole characters"],
)
def test_text_that_no_database_keeps_is_replaced(text: str, kept: str) -> None:
    assert canonical.jsonable({text: [text]}) == {kept: [kept]}


NUMBERS = st.one_of(
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 1e-7, 1e-6, 1e-5, 123456789012345.6, 1e15, 1e16, 1e20, 1e21, 1e22, 0.1, 5e-324]),
)
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(['"', "\\", "1.0", '"1e5', "\x7f"])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


@given(VALUES)
@example({"a": 1.5, "\ufb33": [], "\U0001f600": {}})
def test_the_text_of_a_value_is_that_of_the_standard(value):
    assert canonical.text(value) == rfc8785.dumps(value)


def test_a_number_for_which_the_standard_has_no_text_stays_exact():
    assert canonical.text({"b": 2**53, "a": 1}) == b'{"a":1,"b":9007199254740992}'
