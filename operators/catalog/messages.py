"""Messages to people outside OpenVibe: sent once where a service is connected, never pretended where none is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from openvibe.contrib import email, not_connected
from openvibe.errors import OutsideServiceError, UncertainServiceError

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
    return _sent(ctx, "mail", lambda: mailer.send(to, subject, text, key=key))


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
    return _sent(ctx, "slack", lambda: client.post(channel, text, key=key))


def _sent(ctx: Any, key: str, call: Callable[[], Any]) -> bool:
    try:
        ctx.effect(key, call)
    except UncertainServiceError as error:
        # A step that tries again by itself would send a message twice; whether to, a person says by retrying the run.
        raise OutsideServiceError(f"{error} Look whether the message went out before you retry this run.") from error
    return True
