"""Runs a program such as celery or daphne beside OpenVibe's packages: `python -m openvibe_site.launcher <module> …`.

Such programs look into the current folder first, and there may lie somebody's `operators.py`.
"""

from __future__ import annotations

import runpy
import sys

import agents_ui  # noqa: F401  # imported now, a name is taken: the folder's file of that name is not asked any more
import openvibe  # noqa: F401
import operators  # noqa: F401

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
