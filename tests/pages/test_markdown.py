"""What agents say, drawn: a plain line becomes what markdown would make of it."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from agents_ui import markdown

#: Signs that mean something to markdown or HTML somewhere, beside what plain lines are made of.
_SIGNS = "aBé1² \t\n,.:;?!'\"%()[]<>&/–—…+=-*_`#~|\\\u00a0中"


@given(st.text(alphabet=_SIGNS, max_size=12) | st.text(max_size=12))
@example("a line. Of words (and more)!")
@example("ends with a space ")
@example("1. is a list")
@example("snake_case_name")
def test_a_plain_line_is_drawn_as_markdown_draws_it(text: str) -> None:
    if markdown._PLAIN.fullmatch(text):
        assert markdown.html(text) == markdown._read(text) == f"<p>{text}</p>\n"
    else:
        assert markdown.html(text) == markdown._read(text)


def test_what_people_write_in_a_line_is_plain() -> None:
    for text in ("Working on chunk 3 of 5", "Done: 12 rows (4 new), 50% of all!", "Don't stop…"):
        assert markdown._PLAIN.fullmatch(text)
