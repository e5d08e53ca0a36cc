"""Messages to people outside OpenVibe: sent once where a service is connected, never pretended where none is."""

from __future__ import annotations

import importlib
from typing import Any

from openvibe.contrib import email, not_connected

#: Slack's own package is optional.
INSTALL_SLACK = "Install Slack's package with `pip install openvibe[slack]`, and set SLACK_BOT_TOKEN."


def mailed(ctx: Any, to: str, subject: str, text: str) -> bool:
    """Send a mail; return whether it went out."""
    mailer = email.from_environment()
    if mailer is None:
        not_connected(ctx, "Mail", email.REMEDY)
    elif not to:
        ctx.log("There is no mail address to write to.")
    if mailer is None or not to:
        return False
    key = ctx.idempotency_key("mail")
    ctx.effect("mail", lambda: mailer.send(to, subject, text, key=key))
    return True


def posted(ctx: Any, channel: str, text: str) -> bool:
    """Post to a channel of Slack; return whether it was posted."""
    try:
        slack = importlib.import_module("openvibe.contrib.slack")
    except ImportError:
        not_connected(ctx, "Slack", INSTALL_SLACK)
        return False
    client = slack.from_environment()
    if client is None:
        not_connected(ctx, "Slack", slack.REMEDY)
        return False
    key = ctx.idempotency_key("slack")
    ctx.effect("slack", lambda: client.post(channel, text, key=key))
    return True
