"""Markdown that models and agents wrote, as HTML that cannot do harm."""

from __future__ import annotations

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

# Raw HTML stays text, and so do pictures: they would tell other servers who reads.
_reader = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")
_TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}


def html(text: str) -> SafeString:
    """Return sanitised HTML. Headings move down, below those of the page."""
    tokens = _reader.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
    drawn = _reader.renderer.render(tokens, _reader.options, {})
    clean = nh3.clean(drawn, tags=_TAGS, attributes={"a": {"href", "title"}}, link_rel="noopener noreferrer nofollow")
    return mark_safe(clean)  # noqa: S308  # nh3 has cleaned it
