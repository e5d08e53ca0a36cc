"""What the supervisor says on the terminal: short lines with the seconds since the start."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TextIO

DIM, BOLD, RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"


class Console:
    """Plain text; on a terminal the time marks are dim and the page's address is bold."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self.stream = stream
        self.coloured = stream.isatty()
        self.started = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def say(self, sentence: str) -> None:
        self.write(f"{self._painted(f'{self.elapsed:6.1f} s', DIM)}  {sentence}")

    def tell(self, label: str, value: str, *, strong: bool = False) -> None:
        self.write(f"  {label:<11}{self._painted(value, BOLD) if strong else value}")

    def write(self, line: str = "") -> None:
        # The terminal may be closed while the children still have to be ended.
        with contextlib.suppress(OSError, ValueError):
            print(line, file=self.stream, flush=True)

    def _painted(self, words: str, code: str) -> str:
        return f"{code}{words}{RESET}" if self.coloured else words
