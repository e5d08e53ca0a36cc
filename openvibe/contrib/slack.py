"""Slack: messages, gates as messages with a button for each decision, and the signature of what Slack sends."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.error import URLError

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web import SlackResponse

from openvibe import trace
from openvibe.contrib import faults
from openvibe.contrib.slack_gate import Decision, decision, gate_blocks
from openvibe.errors import OutsideServiceError, TransientServiceError, UncertainServiceError

__all__ = ["REMEDY", "Decision", "Slack", "decision", "from_environment", "gate_blocks", "signed"]

#: What to do when Slack is not connected.
REMEDY = "Set SLACK_BOT_TOKEN to the bot token (xoxb-…) of an app that is in the channel."

#: Requests older than this many seconds are refused, as Slack advises.
MAX_AGE = 300.0

#: The type of the metadata by which a message of ours is found again.
EVENT_TYPE = "openvibe_message"

#: Slack's errors after which the same call may succeed (https://docs.slack.dev/reference/methods/chat.postMessage).
_TRANSIENT = {"ratelimited", "rate_limited", "service_unavailable", "request_timeout", "accesslimited"}
#: Slack's errors of which it says that the call may have had an effect all the same.
_UNCERTAIN = {"internal_error", "fatal_error"}


class Slack:
    """Posts to a Slack workspace through Slack's own SDK. Safe to share between threads.

    `token` is a bot token, by default that of `SLACK_BOT_TOKEN`; `timeout` is in seconds. Nothing is tried again here.
    A run's calls tell its trace (`traceparent`).

    Every method raises:
        UncertainServiceError: the call went out and nobody knows whether Slack obeyed; `posted` can find out.
        TransientServiceError: the same call may succeed later.
        OutsideServiceError: it will not, or Slack is not connected.
    """

    def __init__(
        self, token: str | None = None, *, base_url: str = "https://slack.com/api/", timeout: int = 30
    ) -> None:
        self._token = token if token is not None else os.environ.get("SLACK_BOT_TOKEN", "")
        self._client = _Client(self._token, base_url=base_url, timeout=timeout, retry_handlers=[])

    @property
    def connected(self) -> bool:
        """Whether there is a token; whether Slack takes it, only a call can tell."""
        return bool(self._token)

    def post(
        self, channel: str, text: str, *, blocks: Sequence[Mapping[str, Any]] | None = None, key: str = ""
    ) -> dict[str, str]:
        """Post a message and return its `channel` (Slack's id of it) and `ts`, the message's name in that channel.

        `text` is Slack's mrkdwn, and what notifications show where there are `blocks`. An idempotency `key` goes along
        as `client_msg_id` and in the message's metadata. Slack does not promise to refuse a repeat, so after an
        uncertain call ask `posted` with the same key.
        """
        marks: dict[str, Any] = {}
        if key:
            marks["client_msg_id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"openvibe:{key}"))
            marks["metadata"] = {"event_type": EVENT_TYPE, "event_payload": {"key": key}}
        if blocks:
            marks["blocks"] = list(blocks)
        answer = self._call(self._client.chat_postMessage, channel=channel, text=text, **marks)
        return {"channel": str(answer["channel"]), "ts": str(answer["ts"])}

    def posted(self, channel: str, key: str) -> dict[str, str] | None:
        """Return the message that was posted with this `key` among the channel's latest 100, or None.

        `channel` is a channel's id (`C…`), and the app needs the right to read its history. A reconcile hook:

        Example:
            >>> ctx.effect("tell", lambda: slack.post(channel, text, key=key),
            ...            reconcile=lambda: slack.posted(channel, key) or NOT_DONE)
        """
        asked = {"channel": channel, "limit": 100, "include_all_metadata": True}
        for message in self._call(self._client.conversations_history, **asked)["messages"]:
            metadata = message.get("metadata") or {}
            if metadata.get("event_type") == EVENT_TYPE and metadata.get("event_payload", {}).get("key") == key:
                return {"channel": channel, "ts": str(message["ts"])}
        return None

    def _call(self, method: Callable[..., Any], **content: Any) -> Mapping[str, Any]:
        if not self.connected:
            raise OutsideServiceError(f"Slack is not connected. {REMEDY}")
        try:
            answer: Mapping[str, Any] = method(**content).data
        except SlackApiError as error:
            raise _refused(method.__name__, error) from error
        except SlackClientError as error:
            raise OutsideServiceError(f"Slack's SDK refused {method.__name__}: {error}") from error
        except URLError as error:
            raise TransientServiceError(f"Slack cannot be reached: {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise UncertainServiceError(f"Slack broke off: {error or type(error).__name__}") from error
        return answer


def from_environment() -> Slack | None:
    """Return the process's client for `SLACK_BOT_TOKEN` and `SLACK_BASE_URL`, or None where there is no token."""
    token = os.environ.get("SLACK_BOT_TOKEN", "")
    return _shared(token, os.environ.get("SLACK_BASE_URL") or "https://slack.com/api/") if token else None


def signed(secret: str, body: str | bytes, timestamp: str, signature: str, *, now: float | None = None) -> bool:
    """Tell whether Slack signed this request (scheme v0), and did so in the last five minutes.

    `secret` is the app's signing secret, `body` the raw body, `timestamp` and `signature` the headers
    `X-Slack-Request-Timestamp` and `X-Slack-Signature`; `now` is in seconds since 1970, by default the clock's.
    Source: https://docs.slack.dev/authentication/verifying-requests-from-slack
    """
    if not secret or not re.fullmatch(r"[0-9]{1,12}", timestamp):
        return False
    if abs((time.time() if now is None else now) - int(timestamp)) > MAX_AGE:
        return False
    content = body if isinstance(body, bytes) else body.encode()
    digest = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + content, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"v0={digest}".encode(), signature.encode())


class _Client(WebClient):
    """Slack's own client, which takes headers for all of its calls only."""

    def api_call(self, api_method: str, *, headers: dict[str, str] | None = None, **content: Any) -> SlackResponse:
        """Call one of Slack's methods in the trace of whoever calls."""
        return super().api_call(api_method, headers={**(headers or {}), **trace.headers()}, **content)


@cache
def _shared(token: str, base_url: str) -> Slack:
    return Slack(token, base_url=base_url)


def _refused(method: str, error: SlackApiError) -> OutsideServiceError:
    response = error.response
    reason = str(response.get("error") or "no reason given")
    needed = f" (needs {response['needed']})" if response.get("needed") else ""
    text = f"{method}: {reason}{needed}"
    headers = {name.lower(): value for name, value in (response.headers or {}).items()}
    if reason in _UNCERTAIN:
        return UncertainServiceError(f"Slack answered {text}")
    if reason in _TRANSIENT:
        return TransientServiceError(f"Slack answered {text}", faults.seconds(headers.get("retry-after")))
    return faults.refusal("Slack", response.status_code, text, headers.get("retry-after"))
