"""Slack's client against a local server that answers as Slack does, gates as blocks, and Slack's signature."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from slack_sdk.signature import Clock, SignatureVerifier

from openvibe import canonical, trace
from openvibe.contrib import slack
from openvibe.contrib.slack import Decision, Slack
from openvibe.errors import OutsideServiceError, TransientServiceError, UncertainServiceError
from openvibe.protocol import headers
from tests.threads import serving

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
NOW = 1_760_000_000


class FakeSlack(ThreadingHTTPServer):
    """A workspace with one channel, which keeps its messages, or answers every call with `reply`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.messages: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.tokens: set[str | None] = set()
        self.traces: list[tuple[str | None, str | None]] = []
        self.reply: tuple[int, dict[str, str], str] | None = None
        self.hangs_up = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api/"


class _Handler(BaseHTTPRequestHandler):
    server: FakeSlack

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        method = self.path.removeprefix("/api/")
        self.server.calls.append(method)
        self.server.tokens.add(self.headers.get("authorization"))
        self.server.traces.append((self.headers.get("traceparent"), self.headers.get("tracestate")))
        if self.server.hangs_up:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.server.reply:
            return self._answer(*self.server.reply)
        return self._answer(200, {}, json.dumps(self._done(method, body)))

    def log_message(self, *_: Any) -> None:
        pass

    def _done(self, method: str, body: str) -> dict[str, Any]:
        if method == "conversations.history":
            # Slack's reading methods take forms only.
            asked = {name: values[0] for name, values in parse_qs(body).items()}
            if asked.get("channel") != "C123":
                return {"ok": False, "error": "channel_not_found"}
            shown = "metadata" if asked.get("include_all_metadata") in ("1", "true") else ""
            latest = self.server.messages[-int(asked["limit"]) :][::-1]
            return {"ok": True, "messages": [{k: v for k, v in m.items() if shown or k != "metadata"} for m in latest]}
        content = json.loads(body)
        message = {**content, "ts": f"1760000000.{len(self.server.messages):06}"}
        self.server.messages.append(message)
        return {"ok": True, "channel": "C123", "ts": message["ts"], "message": content}

    def _answer(self, status: int, headers: dict[str, str], text: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers, "content-length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def workspace() -> Iterator[FakeSlack]:
    with serving(FakeSlack()) as server:
        yield server


@pytest.fixture
def client(workspace: FakeSlack) -> Slack:
    return Slack("xoxb-1", base_url=workspace.url, timeout=5)


def test_a_message_is_posted(workspace: FakeSlack, client: Slack) -> None:
    assert client.post("#ops", "A deal is at risk") == {"channel": "C123", "ts": "1760000000.000000"}
    assert workspace.messages == [{"channel": "#ops", "text": "A deal is at risk", "ts": "1760000000.000000"}]
    assert workspace.tokens == {"Bearer xoxb-1"}


def test_it_is_asked_in_the_trace_of_whoever_asks(workspace: FakeSlack, client: Slack) -> None:
    mine = headers.new_trace()
    with trace.within(mine, "vendor=1"):
        client.post("C123", "Hello")
        client.posted("C123", "k-1")
    client.post("C123", "Hello")
    assert workspace.traces == [(mine, "vendor=1"), (mine, "vendor=1"), (None, None)]
    assert workspace.tokens == {"Bearer xoxb-1"}


def test_one_key_always_gives_one_client_message_id(workspace: FakeSlack, client: Slack) -> None:
    for key in ("k-1", "k-1", "k-2"):
        client.post("C123", "Hello", key=key)
    first, again, other = (uuid.UUID(message["client_msg_id"]) for message in workspace.messages)
    assert first == again != other


def test_a_posted_message_is_found_by_its_key(workspace: FakeSlack, client: Slack) -> None:
    for key in ("k-1", "k-2", ""):
        client.post("C123", "Hello", key=key)
    assert client.posted("C123", "k-1") == {"channel": "C123", "ts": "1760000000.000000"}
    assert client.posted("C123", "k-2") == {"channel": "C123", "ts": "1760000000.000001"}
    assert client.posted("C123", "k-3") is None


@pytest.mark.parametrize("error", ["ratelimited", "service_unavailable"])
def test_an_overloaded_slack_may_be_asked_again(workspace: FakeSlack, client: Slack, error: str) -> None:
    workspace.reply = (429, {"Retry-After": "30"}, json.dumps({"ok": False, "error": error}))
    with pytest.raises(TransientServiceError, match=error) as told:
        client.post("C123", "Hello")
    assert told.value.retry_after == 30
    assert not isinstance(told.value, UncertainServiceError)
    assert workspace.calls == ["chat.postMessage"], "trying again is the engine's, where the timeline shows it"


def test_a_fault_of_slack_that_is_no_json_may_pass(workspace: FakeSlack, client: Slack) -> None:
    workspace.reply = (503, {"content-type": "text/html"}, "<html>upstream</html>")
    with pytest.raises(TransientServiceError, match="503"):
        client.post("C123", "Hello")


@pytest.mark.parametrize("error", ["channel_not_found", "invalid_auth", "msg_too_long"])
def test_a_refused_message_is_not_worth_another_try(workspace: FakeSlack, client: Slack, error: str) -> None:
    workspace.reply = (200, {}, json.dumps({"ok": False, "error": error, "needed": "chat:write"}))
    with pytest.raises(OutsideServiceError, match=rf"{error} \(needs chat:write\)") as told:
        client.post("C123", "Hello")
    assert not isinstance(told.value, TransientServiceError)


def test_a_call_without_a_clear_answer_is_uncertain(workspace: FakeSlack, client: Slack) -> None:
    workspace.reply = (200, {}, json.dumps({"ok": False, "error": "fatal_error"}))
    with pytest.raises(UncertainServiceError, match="fatal_error"):
        client.post("C123", "Hello")
    workspace.hangs_up = True
    with pytest.raises(UncertainServiceError, match="broke off"):
        client.post("C123", "Hello")


def test_a_slack_that_cannot_be_reached_has_certainly_done_nothing() -> None:
    with pytest.raises(TransientServiceError, match="cannot be reached") as told:
        Slack("xoxb-1", base_url="http://127.0.0.1:9/", timeout=1).post("C123", "Hello")
    assert not isinstance(told.value, UncertainServiceError)


def test_without_a_token_nothing_is_sent(workspace: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLACK_BOT_TOKEN", raising=False)
    client = Slack(base_url=workspace.url)
    assert not client.connected
    assert slack.from_environment() is None
    with pytest.raises(OutsideServiceError, match="SLACK_BOT_TOKEN"):
        client.post("C123", "Hello")
    assert workspace.calls == []


def test_the_environment_makes_one_client_for_the_process(
    workspace: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-2")
    monkeypatch.setenv("SLACK_BASE_URL", workspace.url)
    client = slack.from_environment()
    assert client is not None
    assert client is slack.from_environment()
    client.post("C123", "Hello")
    assert workspace.tokens == {"Bearer xoxb-2"}


PAYLOAD = {"company": "Müller & <Söhne>", "score": 81, "reasons": ["budget", "timing"]}
GATE: dict[str, Any] = {"wait_id": "wait_1", "version": 2, "payload_sha256": canonical.sha256(PAYLOAD)}
RUN_URL = "https://ops.example.com/agents/run_1/"


def gate(prompt: str = "Send it?", payload: Any = PAYLOAD, **options: Any) -> list[dict[str, Any]]:
    return slack.gate_blocks(prompt, payload, run_url=RUN_URL, **GATE, **options)


def buttons(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [button for block in blocks if block["type"] == "actions" for button in block["elements"]]


def pressed(button: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """What Slack sends when that button is pressed."""
    return {
        "type": "block_actions",
        "user": {"id": "U42", "username": "alice", "name": "alice", "team_id": "T1"},
        "container": {"type": "message", "message_ts": "1760000000.000001", "channel_id": "C123"},
        "response_url": "https://hooks.slack.com/actions/T1/1/x",
        "actions": [{**{name: button[name] for name in ("action_id", "value", "type")}, "action_ts": "1760000009.1"}],
        **changed,
    }


def test_a_gate_has_a_button_for_each_decision() -> None:
    made = buttons(gate(decisions=("approve", "reject", "handoff_to_sales")))
    assert [button["text"]["text"] for button in made] == ["Approve", "Reject", "Handoff to sales"]
    assert [button.get("style") for button in made] == ["primary", "danger", None]
    assert len({button["action_id"] for button in made}) == 3


def test_a_gate_shows_what_it_is_about_and_where_the_run_is() -> None:
    texts = [block["text"]["text"] for block in gate() if block["type"] == "section"]
    assert texts[0] == "*Send it?*"
    assert texts[1] == "*company*\nMüller &amp; &lt;Söhne&gt;"
    assert "budget" in texts[3]
    [context] = [block for block in gate() if block["type"] == "context"]
    assert context["elements"][0]["text"] == f"<{RUN_URL}|Open the run>"


def test_nothing_in_a_payload_can_call_people_or_hide_a_link() -> None:
    shown = json.dumps(gate(prompt="<!channel>", payload={"<@U1>": "<https://evil.example|your bank>"}))
    assert "<!channel>" not in shown
    assert "<@U1>" not in shown
    assert "<https://evil" not in shown


@pytest.mark.parametrize("payload", [{"text": "x" * 9000}, {f"field_{n}": n for n in range(80)}, "x" * 9000])
def test_what_slack_has_no_room_for_is_cut_and_the_message_says_so(payload: Any) -> None:
    blocks = gate(payload=payload)
    assert len(blocks) <= 50
    assert all(len(block["text"]["text"]) <= 3000 for block in blocks if block["type"] == "section")
    assert "open the run before you decide" in json.dumps(blocks)


def test_a_gate_without_a_payload_is_only_its_prompt() -> None:
    assert [block["type"] for block in gate(payload=None)] == ["section", "context", "actions"]


def test_a_press_is_read_back_to_the_gate_it_was_shown_for() -> None:
    [_, reject] = buttons(gate())
    expected = Decision(
        **GATE, decision="reject", user_id="U42", user_name="alice", channel="C123", ts="1760000000.000001",
        response_url="https://hooks.slack.com/actions/T1/1/x",
    )  # fmt: skip
    assert slack.decision(json.dumps(pressed(reject))) == expected
    assert slack.decision(pressed(reject)) == expected


def test_what_is_no_press_of_a_button_of_ours_is_none() -> None:
    [approve, _] = buttons(gate())
    foreign = {"action_id": "other_app", "value": approve["value"], "type": "button"}
    for payload in (
        "", "no json", "[]", "null", "{}",
        pressed(approve, type="view_submission"),
        pressed(approve, actions=[]),
        pressed(approve, user=None),
        pressed(foreign),
        pressed({**approve, "value": "{}"}),
        pressed({**approve, "value": "approve"}),
        pressed({**approve, "value": json.dumps({**GATE, "version": "two", "decision": "approve"})}),
    ):  # fmt: skip
        assert slack.decision(payload) is None, payload


class _Then(Clock):
    def now(self) -> float:
        return NOW


def test_the_signature_is_the_one_that_slacks_own_sdk_makes() -> None:
    body = "payload=%7B%22type%22%3A%22block_actions%22%7D"
    signature = SignatureVerifier(SECRET, _Then()).generate_signature(timestamp=str(NOW), body=body)
    assert signature is not None
    assert slack.signed(SECRET, body, str(NOW), signature, now=NOW + 299)
    assert slack.signed(SECRET, body.encode(), str(NOW), signature, now=NOW)
    assert not slack.signed(SECRET, f"{body}&x=1", str(NOW), signature, now=NOW)
    assert not slack.signed(SECRET, body, str(NOW + 1), signature, now=NOW)
    assert not slack.signed("another secret", body, str(NOW), signature, now=NOW)


@pytest.mark.parametrize("age", [-301, 301])
def test_a_request_of_another_time_is_refused(age: float) -> None:
    signature = SignatureVerifier(SECRET).generate_signature(timestamp=str(NOW), body="")
    assert signature is not None
    assert not slack.signed(SECRET, "", str(NOW), signature, now=NOW + age)


@pytest.mark.parametrize("timestamp", ["", "soon", "-5", "1e9"])
def test_a_time_that_makes_no_sense_is_refused(timestamp: str) -> None:
    signature = SignatureVerifier(SECRET).generate_signature(timestamp=timestamp, body="")
    assert signature is not None
    assert not slack.signed(SECRET, b"\xff", timestamp, signature, now=NOW)


def test_an_empty_secret_signs_nothing() -> None:
    assert not slack.signed("", "", str(NOW), "v0=", now=NOW)
