"""How a line of the log is written."""

from __future__ import annotations

import logging

from openvibe import controls


class Line(logging.Formatter):
    """A line that may tell what others sent, and moves no terminal that shows it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and below it the traceback, if there is one."""
        return controls.escaped(super().format(record))
