"""Control characters in what others wrote: a terminal obeys them, so they are shown instead."""

from __future__ import annotations

import re

#: All of C0, C1 and DEL but tabs and ends of lines; halves of surrogate pairs, which no terminal is sent, go with them.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""Return a text with each control character as JSON writes it, such as `\u001b`; all other text stays as it is."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def entry(text: str) -> str:
    """Return a text as an entry of a list: escaped, its further lines indented, so that none looks like an entry."""
    return escaped(text).replace("\n", "\n    ")
