"""HubSpot's client against a local server that answers as HubSpot does, and the signature of its webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from openvibe import contrib, trace
from openvibe.contrib import hubspot
from openvibe.contrib.hubspot import HubSpot
from openvibe.errors import OutsideServiceError, RunError, TransientServiceError
from openvibe.protocol import headers
from tests.threads import serving

SECRET = "a client secret"
URI = "https://ops.example.com/v1/webhooks/hubspot"
NOW = 1_760_000_000.0
STAMP = "1760000000000"


class FakeHubSpot(ThreadingHTTPServer):
    """A CRM with two contacts and three deals, which keeps the requests, or refuses all of them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.contacts = {"101": {"email": "ada@example.com"}, "102": {"email": "bob@example.com"}}
        self.deals = {"7": {"hs_is_closed": "false"}, "8": {"hs_is_closed": "true"}, "9": {"hs_is_closed": "false"}}
        self.requests: list[tuple[str, str, Any]] = []
        self.tokens: set[str | None] = set()
        self.ports: set[int] = set()
        self.traces: list[tuple[str | None, str | None]] = []
        self.refusal: tuple[int, dict[str, str], str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHubSpot

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PATCH = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        content = json.loads(body) if body else None
        crm = self.server
        crm.requests.append((self.command, self.path, content))
        crm.tokens.add(self.headers.get("authorization"))
        crm.ports.add(self.client_address[1])
        crm.traces.append((self.headers.get("traceparent"), self.headers.get("tracestate")))
        if crm.refusal:
            status, headers, text = crm.refusal
            return self._answer(status, text, headers)
        status, answer = self._answered(content)
        return self._answer(status, json.dumps(answer), {"content-type": "application/json"})

    def _answered(self, content: Any) -> tuple[int, Any]:
        crm, address = self.server, urlsplit(self.path)
        kind, *rest = address.path.removeprefix("/crm/v3/objects/").split("/")
        objects = crm.contacts if kind == "contacts" else crm.deals
        if rest == ["search"]:
            wanted = [item for group in content.get("filterGroups", []) for item in group["filters"]]
            found = {
                key: values for key, values in objects.items()
                if all(values.get(item["propertyName"]) == item["value"] for item in wanted)
            }  # fmt: skip
            return 200, {"total": len(found), "results": [_told(key, found) for key in found][: content["limit"]]}
        if not rest:
            query = parse_qs(address.query)
            ids = [key for key in objects if key > query.get("after", [""])[0]]
            page = ids[: int(query["limit"][0])]
            paging = {"paging": {"next": {"after": page[-1], "link": "…"}}} if len(page) < len(ids) else {}
            return 200, {"results": [_told(key, objects) for key in page], **paging}
        if rest[0] not in objects:
            return 404, {"status": "error", "message": f"resource not found: {rest[0]}"}
        if self.command == "PATCH":
            objects[rest[0]].update(content["properties"])
        return 200, _told(rest[0], objects)

    def _answer(self, status: int, text: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(text.encode()))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())


def _told(key: str, objects: dict[str, Any]) -> dict[str, Any]:
    return {"id": key, "properties": objects[key], "archived": False}


@pytest.fixture
def crm() -> Iterator[FakeHubSpot]:
    with serving(FakeHubSpot()) as server:
        yield server


@pytest.fixture
def client(crm: FakeHubSpot) -> Iterator[HubSpot]:
    made = HubSpot("pat-1", base_url=crm.url, timeout=5)
    yield made
    made.close()


def test_a_contact_is_read_by_its_id(crm: FakeHubSpot, client: HubSpot) -> None:
    contact = client.contact("101", properties=["email", "lead_score"])
    assert contact["properties"]["email"] == "ada@example.com"
    assert crm.requests == [("GET", "/crm/v3/objects/contacts/101?properties=email%2Clead_score", None)]
    assert crm.tokens == {"Bearer pat-1"}


def test_it_is_asked_in_the_trace_of_whoever_asks(crm: FakeHubSpot, client: HubSpot) -> None:
    mine = headers.new_trace()
    with trace.within(mine, "vendor=1"):
        client.contact("101")
        client.update_deal("7", {"amount": 1})
    client.contact("101")
    assert crm.traces == [(mine, "vendor=1"), (mine, "vendor=1"), (None, None)]


def test_an_id_cannot_lead_to_another_path(crm: FakeHubSpot, client: HubSpot) -> None:
    with pytest.raises(OutsideServiceError, match="404"):
        client.contact("../deals/7")
    assert urlsplit(crm.requests[0][1]).path == "/crm/v3/objects/contacts/..%2Fdeals%2F7"


def test_contacts_are_read_page_by_page(client: HubSpot) -> None:
    first = client.contacts(limit=1)
    second = client.contacts(limit=1, after=first.after)
    assert [contact["id"] for page in (first, second) for contact in page] == ["101", "102"]
    assert (first.after, second.after) == ("101", "")


def test_active_deals_leave_out_the_closed_ones(client: HubSpot) -> None:
    assert [deal["id"] for deal in client.deals(limit=50)] == ["7", "9"]
    assert [deal["id"] for deal in client.deals(limit=50, active=False)] == ["7", "8", "9"]
    assert len(client.deals(limit=1)) == 1


def test_an_update_sets_the_properties_it_names(crm: FakeHubSpot, client: HubSpot) -> None:
    changed = client.update_contact("101", {"hs_lead_status": "SALES", "lead_score": 81}, key="openvibe-1")
    client.update_deal("7", {"dealstage": "won"})
    assert changed["properties"] == crm.contacts["101"]
    assert crm.contacts["101"] == {"email": "ada@example.com", "hs_lead_status": "SALES", "lead_score": 81}
    assert crm.deals["7"]["dealstage"] == "won"


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [(429, {"retry-after": "7"}, 7.0), (429, {}, None), (500, {}, None), (503, {"retry-after": "soon"}, None)],
)
def test_an_overloaded_service_may_be_asked_again(
    crm: FakeHubSpot, client: HubSpot, status: int, headers: dict[str, str], pause: float | None
) -> None:
    crm.refusal = (
        status,
        headers,
        '{"status": "error", "message": "You have reached your limit."}',
    )
    with pytest.raises(TransientServiceError, match=rf"{status}: You have reached") as told:
        client.contact("101")
    assert told.value.retry_after == pause
    assert len(crm.requests) == 1, "trying again is the engine's, where the timeline shows it"


def test_a_pause_may_be_told_as_a_date(crm: FakeHubSpot, client: HubSpot) -> None:
    crm.refusal = (503, {"retry-after": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))}, "")
    with pytest.raises(TransientServiceError) as told:
        client.contact("101")
    assert told.value.retry_after == pytest.approx(60, abs=5)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_a_refused_call_is_not_worth_another_try(crm: FakeHubSpot, client: HubSpot, status: int) -> None:
    crm.refusal = (status, {}, "<html>no</html>")
    with pytest.raises(OutsideServiceError, match=f"{status}: <html>no</html>") as told:
        client.contact("101")
    assert not isinstance(told.value, TransientServiceError)
    assert isinstance(told.value, RunError)


def test_a_service_that_is_away_may_come_back(crm: FakeHubSpot) -> None:
    with pytest.raises(TransientServiceError, match="cannot be reached"):
        HubSpot("pat-1", base_url="http://127.0.0.1:9", timeout=1).contacts()


def test_an_answer_that_is_no_json_is_told(crm: FakeHubSpot, client: HubSpot) -> None:
    crm.refusal = (200, {}, "<html>maintenance</html>")
    with pytest.raises(TransientServiceError, match="without JSON"):
        client.contacts()


def test_threads_share_the_connections(crm: FakeHubSpot, client: HubSpot) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: client.contact("101")["id"], range(40)))
    assert found == ["101"] * 40
    assert len(crm.ports) <= 4


def test_without_a_token_nothing_is_sent(crm: FakeHubSpot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUBSPOT_TOKEN", raising=False)
    client = HubSpot(base_url=crm.url)
    assert not client.connected
    assert hubspot.from_environment() is None
    with pytest.raises(OutsideServiceError, match="HUBSPOT_TOKEN"):
        client.contact("101")
    assert crm.requests == []


def test_the_environment_makes_one_client_for_the_process(crm: FakeHubSpot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBSPOT_TOKEN", "pat-2")
    monkeypatch.setenv("HUBSPOT_BASE_URL", crm.url)
    client = hubspot.from_environment()
    assert client is not None
    assert client is hubspot.from_environment()
    assert client.connected
    assert client.contact("101")["id"] == "101"
    assert crm.tokens == {"Bearer pat-2"}
    client.close()


def test_a_node_says_that_a_service_is_not_connected() -> None:
    class Timeline:
        def log(self, message: str, **data: Any) -> None:
            said.append((message, data))

    said: list[tuple[str, dict[str, Any]]] = []
    assert contrib.not_connected(Timeline(), "HubSpot", hubspot.REMEDY) == {}
    [(message, data)] = said
    assert message.startswith("HubSpot is not connected")
    assert "HUBSPOT_TOKEN" in message
    assert data == {"service": "HubSpot", "connected": False}


def test_a_signature_covers_method_uri_body_and_time() -> None:
    body = '[{"subscriptionType": "contact.creation", "objectId": 101}]'
    expected = base64.b64encode(
        hmac.new(SECRET.encode(), f"POST{URI}{body}{STAMP}".encode(), hashlib.sha256).digest()
    ).decode()
    assert hubspot.signature_v3(SECRET, method="POST", uri=URI, body=body, timestamp=STAMP) == expected
    assert hubspot.signature_v3(SECRET, method="post", uri=URI, body=body.encode(), timestamp=STAMP) == expected


def test_the_uri_is_decoded_as_hubspot_decodes_it() -> None:
    def signed(uri: str) -> str:
        return hubspot.signature_v3(SECRET, method="GET", uri=uri, body="", timestamp=STAMP)

    assert signed(f"{URI}?a=%3A%2F%3F%40%21%24%27%28%29%2A%2C%3B") == signed(f"{URI}?a=:/?@!$'()*,;")
    assert signed(f"{URI}?a=%3a") == signed(f"{URI}?a=:")
    assert signed(f"{URI}?a=%20%26%25") != signed(f"{URI}?a= &%"), "nothing else is decoded"
    assert signed(f"{URI}?a=%253A") != signed(f"{URI}?a=:"), "nothing is decoded twice"


SIGNED = {"method": "POST", "uri": URI, "body": "{}", "timestamp": STAMP}


def test_a_signed_request_is_taken() -> None:
    signature = hubspot.signature_v3(SECRET, **SIGNED)
    assert hubspot.signed_v3(SECRET, **SIGNED, signature=signature, now=NOW + 299)


@pytest.mark.parametrize(
    "changed", [{"method": "PUT"}, {"uri": f"{URI}/x"}, {"body": "{} "}, {"timestamp": "1760000000001"}]
)
def test_a_request_that_was_changed_is_refused(changed: dict[str, str]) -> None:
    signature = hubspot.signature_v3(SECRET, **SIGNED)
    assert not hubspot.signed_v3(SECRET, **{**SIGNED, **changed}, signature=signature, now=NOW)


@pytest.mark.parametrize("age", [-301, 301, 86_400])
def test_a_request_of_another_time_is_refused(age: float) -> None:
    signature = hubspot.signature_v3(SECRET, **SIGNED)
    assert not hubspot.signed_v3(SECRET, **SIGNED, signature=signature, now=NOW + age)


@pytest.mark.parametrize("timestamp", ["", "soon", "1.7e12", "-1760000000000", "１７６０００００００００００"])
def test_a_time_that_makes_no_sense_is_refused(timestamp: str) -> None:
    request = {**SIGNED, "timestamp": timestamp}
    signature = hubspot.signature_v3(SECRET, **request)
    assert not hubspot.signed_v3(SECRET, **request, signature=signature, now=NOW)


def test_a_foreign_or_missing_signature_is_refused() -> None:
    forged = hubspot.signature_v3("another secret", **SIGNED)
    assert not hubspot.signed_v3(SECRET, **SIGNED, signature=forged, now=NOW)
    assert not hubspot.signed_v3(SECRET, **SIGNED, signature="", now=NOW)
    assert not hubspot.signed_v3(SECRET, **SIGNED, signature="é", now=NOW)
    unkeyed = hubspot.signature_v3("", **SIGNED)
    assert not hubspot.signed_v3("", **SIGNED, signature=unkeyed, now=NOW), "an empty secret signs nothing"
