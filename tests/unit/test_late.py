"""Who does not play loads no LangGraph: it takes half of a process's start, and a quarter of its memory."""

import os
import subprocess
import sys

import pytest

from openvibe import late

PROGRAM = """
import sys
import django

django.setup()
from operators import definitions

definitions.from_code()
import {module}

print(*sorted(set(sys.modules) & {{"langgraph", "langchain_core", "langsmith"}}))
"""


@pytest.mark.parametrize(
    "module",
    ["openvibe_site.urls", "operators.bridge.ingest", "operators.clock", "operators.management.commands.prepare"],
)
def test_processes_that_play_nothing_load_no_langgraph(module):
    settings = {**os.environ, "DJANGO_SETTINGS_MODULE": "openvibe_site.settings"}

    told = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)],
        env=settings, check=True, timeout=60, capture_output=True, text=True,
    )  # fmt: skip

    assert told.stdout.split() == []


def test_a_late_module_is_the_module_itself():
    assert late.history is sys.modules["openvibe.graph.history"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        late.nothing  # noqa: B018
