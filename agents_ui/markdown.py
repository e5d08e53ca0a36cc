"""Markdown that models and agents wrote, as HTML that cannot do harm."""

from __future__ import annotations

import re

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

# Raw HTML stays text, and so do pictures: they would tell other servers who reads.
_reader = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")
_TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
# One line that begins with a letter and has no sign in it that means something to markdown or to HTML.
_PLAIN = re.compile(r"[^\W\d_](?:[^\W_]|[ ,.:;?!'%()/–—…+=-])*(?<! )")


def html(text: str) -> SafeString:
    """Return sanitised HTML. Headings move down, below those of the page."""
    # Much of what agents say is such a line; to read it as markdown would take as long as to draw all around it.
    drawn = f"<p>{text}</p>\n" if _PLAIN.fullmatch(text) else _read(text)
    return mark_safe(drawn)  # noqa: S308  # nh3 has cleaned it, or there is nothing to clean


def _read(text: str) -> str:
    tokens = _reader.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
    drawn = _reader.renderer.render(tokens, _reader.options, {})
    return nh3.clean(drawn, tags=_TAGS, attributes={"a": {"href", "title"}}, link_rel="noopener noreferrer nofollow")
