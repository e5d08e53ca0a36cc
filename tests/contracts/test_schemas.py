"""The published schemas refuse nothing that their readers take: an agent that keeps to them is understood."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openvibe import config
from openvibe.errors import SetupError
from openvibe.protocol import envelope, sessions
from openvibe.protocol.envelope import Malformed
from operators.api.schemas import SCHEMAS
from tests.contracts.test_session_messages import EXAMPLES, written
from tests.unit.test_yaml import FULL

Place = tuple[str | int, ...]
Reader = Callable[[Mapping[str, Any]], object]

ENVELOPE = {
    "version": "1", "id": "m1", "timestamp": "2025-10-22T10:00:00Z", "type": "note", "project": "p", "channel": "c",
    "run_id": "r", "operator_id": "o", "workflow_id": "w", "step_id": "s", "seq": 3, "role": "user", "kind": "k",
    "content": "hello", "payload": {"a": 1},
}  # fmt: skip
#: Stands for the removal of what is there.
REMOVED = object()
#: What some reader might take for something else.
DOUBTFUL = [
    "", " ", "1", "01", "3.0", "-1", "1e3", "true", "null", "1h30m", "x" * 201, "2025-10-22", "2025-10-22T10:00:00",
    "2025-10-22T10:00:00Z\n", "1700000000", 1_700_000_000, {"card": "0" * 64, "size": 1}, {"card": "0" * 64},
    {"card": "0" * 63, "size": 1}, {"card": "0" * 64, "size": "1"}, {"card": "0" * 64, "size": True},
]  # fmt: skip
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.one_of(
    st.just(REMOVED), PLAIN, st.integers(-2, 2), st.sampled_from(DOUBTFUL),
    st.datetimes().map(lambda moment: moment.isoformat()), st.lists(PLAIN, max_size=2),
    st.dictionaries(st.text(), PLAIN, max_size=2),
)  # fmt: skip
SUFFIXES = ["", ".v1", ".v01", ".v0", ".v2", ".v", ".v1\n", ".V1"]


def as_session(body: Mapping[str, Any], *, name: str) -> None:
    if sessions.read(body).type != name:
        raise Malformed("type: it is another message")


def as_operators(body: Mapping[str, Any]) -> None:
    config.parse(yaml.safe_dump(body))


#: An example that has everything, and who reads such, by the name of its schema.
CASES: dict[str, tuple[dict[str, Any], Reader]] = {
    "envelope": (ENVELOPE, envelope.read),
    "operators": (yaml.safe_load(textwrap.dedent(FULL)), as_operators),
    "sessions": (written("event.progress", payload={"percent": 40}), sessions.read),
    **{
        f"sessions.{name}": (written(name, payload=EXAMPLES[name]), partial(as_session, name=name))
        for name in sessions.TYPES
    },
}


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Yield where something stands in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*here, key)
        yield from places(inner, (*here, key))


def changed(document: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """Return the document with another value at a place, or with nothing there."""
    found = copy.deepcopy(document)
    around: Any = found
    for part in place[:-1]:
        around = around[part]
    if value is REMOVED:
        del around[place[-1]]
    else:
        around[place[-1]] = value
    return found


def is_read(read: Reader, body: Mapping[str, Any]) -> bool:
    try:
        read(body)
    except (Malformed, SetupError):
        return False
    return True


def test_every_published_schema_has_a_reader_here() -> None:
    assert set(CASES) == set(SCHEMAS)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data())
def test_what_a_schema_refuses_the_reader_refuses_too(name: str, data: st.DataObject) -> None:
    document, read = CASES[name]
    validator = jsonschema.Draft202012Validator(SCHEMAS[name]())
    place = data.draw(st.sampled_from(list(places(document))), label="place")
    types = st.sampled_from([document.get("type", "") + suffix for suffix in SUFFIXES])
    value = data.draw(VALUES | types if place == ("type",) else VALUES, label="value")
    body = changed(document, place, value)
    if not validator.is_valid(body):
        assert not is_read(read, body)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_both_take_the_example(name: str) -> None:
    document, read = CASES[name]
    jsonschema.Draft202012Validator(SCHEMAS[name]()).validate(document)
    assert is_read(read, document)
