"""Control characters in what others wrote."""

from __future__ import annotations

import json
import logging
import logging.config
import unicodedata

import pytest
from django.conf import settings

from openvibe import controls


def test_a_control_character_is_shown_as_json_writes_it() -> None:
    text = "".join(map(chr, range(256)))
    shown = controls.escaped(text)
    assert {sign for sign in shown if unicodedata.category(sign) == "Cc"} == {"\t", "\n"}
    assert json.loads(shown[shown.index("]") :].join(('"', '"'))) == text[text.index("]") :]
    assert controls.escaped(shown) == shown
    assert controls.escaped("\x1b[2J\x9b\r\ud800") == r"\u001b[2J\u009b\u000d\ud800"


@pytest.mark.parametrize("text", ["", "two\nlines\tand a tab", "ü🦉\u200d\u2028 שלום"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert controls.escaped(text) == text


@pytest.mark.parametrize("name", ["line", "json"])
def test_a_line_of_the_log_moves_no_terminal(name: str) -> None:
    config = logging.config.DictConfigurator(settings.LOGGING)  # type: ignore[attr-defined]
    formatter = config.configure_formatter(settings.LOGGING["formatters"][name])
    told = formatter.format(logging.makeLogRecord({"msg": "Dead letter from %s", "args": ("\x1b[2Jcg",)}))
    assert told.endswith(r"Dead letter from \u001b[2Jcg")
