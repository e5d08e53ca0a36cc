"""The row of what somebody outside says: markup in Python, since a page has hundreds of them and more come at any time.

A template's many small nodes take several times as long, most of all where they come now and then, out of the caches.
"""

from __future__ import annotations

from typing import Any

from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from agents_ui.items import Moment
from agents_ui.templatetags.openvibe import humanised, kind_of, markdown, when
from operators.models import Run


def row(item: Moment, run: Run | None, *, public: bool) -> SafeString:
    """Draw it. On a `public` channel it names its `run`, and its day."""
    entry = item.entry
    head = f"<b>{escape(entry.actor or 'An agent')}</b>"
    if item.told != "message":
        head += f' <span class="badge">{escape(humanised(item.told))}</span>'
    if run is not None:
        names = f"{escape(run.operator.name)} › {escape(run.workflow.name)}"
        head += f' <a href="{reverse("run", args=[run.id])}">{names}</a>'
    at = when(entry.at) if public else when(entry.at, "clock")
    drawn = (
        f'<li id="{entry.anchor}" class="agent" data-seq="{entry.seq}">'
        f'<span class="avatar" aria-hidden="true">{escape(entry.actor[:1].upper() or "?")}</span>'
        f'<div class="agent-body"><p class="agent-head">{head} <a class="stamp" href="#{entry.anchor}">{at}</a></p>'
        f"{_said(entry.data.get('content'))}{_details(item.payload)}</div></li>"
    )
    return mark_safe(drawn)  # noqa: S308  # every text in it is escaped, or drawn by what escapes


def _said(content: Any) -> str:
    if not content:
        return ""
    return f'<div class="prose">{markdown(content)}</div>' if kind_of(content) == "text" else _value(content)


def _details(payload: Any) -> str:
    return f'<details class="more"><summary>Details</summary>{_value(payload)}</details>' if payload else ""


def _value(value: Any) -> str:
    return render_to_string("values/value.html", {"value": value})
