"""HubSpot's CRM: contacts and deals, and the signature of its webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx

from openvibe import trace
from openvibe.contrib import faults
from openvibe.errors import OutsideServiceError, TransientServiceError

#: What to do when HubSpot is not connected.
REMEDY = "Set HUBSPOT_TOKEN to the access token of a private app."

#: Properties that are read when a caller names none.
CONTACT_PROPERTIES = ("email", "firstname", "lastname", "company", "jobtitle", "phone", "lifecyclestage",
                      "hs_lead_status", "lead_score")  # fmt: skip
DEAL_PROPERTIES = ("dealname", "amount", "dealstage", "pipeline", "closedate", "hubspot_owner_id",
                   "hs_lastmodifieddate", "hs_is_closed")  # fmt: skip

#: HubSpot's own limit on the results of one request.
MOST_RESULTS = 100

#: Requests older than this many seconds are refused, as HubSpot demands.
MAX_AGE = 300.0

#: What HubSpot decodes in a URI before it signs it, and nothing else: `:/?@!$'()*,;`
_DECODED = re.compile(r"%(3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """Some objects as HubSpot gives them (`id`, `properties`, …), and where the next page begins ("" at the end)."""

    items: tuple[dict[str, Any], ...]
    after: str = ""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class HubSpot:
    """Reads and updates a HubSpot account. One connection pool for all threads; make one and keep it.

    `token` is a private app's access token, by default that of `HUBSPOT_TOKEN`; `timeout` is in seconds. Nothing is
    tried again here: a caller sees each fault, and whether another try may help. Objects are returned as HubSpot's
    API v3 gives them: `{"id": …, "properties": {…}}`. A run's calls tell its trace (`traceparent`).

    Every method raises:
        TransientServiceError: the same call may succeed later (rate limit, fault of the service or of the network).
        OutsideServiceError: it will not, or HubSpot is not connected.
    """

    def __init__(
        self, token: str | None = None, *, base_url: str = "https://api.hubapi.com", timeout: float = 30.0
    ) -> None:
        self._token = token if token is not None else os.environ.get("HUBSPOT_TOKEN", "")
        self._client = httpx.Client(
            base_url=base_url, timeout=timeout, headers={"Authorization": f"Bearer {self._token}"}
        )

    @property
    def connected(self) -> bool:
        """Whether there is a token; whether HubSpot takes it, only a call can tell."""
        return bool(self._token)

    def contact(self, id: str, *, properties: Sequence[str] = CONTACT_PROPERTIES) -> dict[str, Any]:
        """Return the contact of that id."""
        found: dict[str, Any] = self._call("GET", _path("contacts", id), params={"properties": ",".join(properties)})
        return found

    def contacts(
        self, limit: int = MOST_RESULTS, after: str = "", *, properties: Sequence[str] = CONTACT_PROPERTIES
    ) -> Page:
        """Return a page of at most `limit` contacts (1 to 100), from where the last page's `after` points."""
        params = {"limit": str(min(limit, MOST_RESULTS)), "properties": ",".join(properties)}
        return _page(self._call("GET", _path("contacts"), params=params | ({"after": after} if after else {})))

    def deals(
        self, limit: int = 50, *, active: bool = True, after: str = "", properties: Sequence[str] = DEAL_PROPERTIES
    ) -> Page:
        """Return a page of at most `limit` deals (1 to 100), latest change first; `active` leaves out closed ones."""
        search: dict[str, Any] = {
            "limit": min(limit, MOST_RESULTS),
            "properties": list(properties),
            "sorts": [{"propertyName": "hs_lastmodifieddate", "direction": "DESCENDING"}],
        }
        if active:
            still_open = {"propertyName": "hs_is_closed", "operator": "EQ", "value": "false"}
            search["filterGroups"] = [{"filters": [still_open]}]
        return _page(self._call("POST", f"{_path('deals')}/search", json=search | ({"after": after} if after else {})))

    def update_contact(self, id: str, properties: Mapping[str, Any], *, key: str = "") -> dict[str, Any]:
        """Set properties of a contact and return it.

        `key` is taken so that every act has one, but HubSpot knows no idempotency key: a repeated update sets the same
        values again, which changes nothing more.
        """
        return self._update("contacts", id, properties)

    def update_deal(self, id: str, properties: Mapping[str, Any], *, key: str = "") -> dict[str, Any]:
        """Set properties of a deal and return it; `key` as for `update_contact`."""
        return self._update("deals", id, properties)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _update(self, kind: str, id: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = self._call("PATCH", _path(kind, id), json={"properties": dict(properties)})
        return changed

    def _call(self, method: str, path: str, **content: Any) -> Any:
        if not self.connected:
            raise OutsideServiceError(f"HubSpot is not connected. {REMEDY}")
        try:
            response = self._client.request(method, path, headers=trace.headers(), **content)
        except httpx.TransportError as error:
            raise TransientServiceError(f"HubSpot cannot be reached: {error or type(error).__name__}") from error
        if response.is_success:
            return _json(response)
        raise faults.refusal("HubSpot", response.status_code, _reason(response), response.headers.get("retry-after"))


def from_environment() -> HubSpot | None:
    """Return the process's client for `HUBSPOT_TOKEN` and `HUBSPOT_BASE_URL`, or None where there is no token."""
    token = os.environ.get("HUBSPOT_TOKEN", "")
    return _shared(token, os.environ.get("HUBSPOT_BASE_URL") or "https://api.hubapi.com") if token else None


def signature_v3(secret: str, *, method: str, uri: str, body: str | bytes, timestamp: str) -> str:
    """Return the `X-HubSpot-Signature-v3` of a request: base64 of HMAC-SHA256 over method, URI, body and timestamp.

    `secret` is the app's client secret, `uri` the whole URI that HubSpot called, scheme, host and query included,
    `timestamp` the text of `X-HubSpot-Request-Timestamp`, in milliseconds. The characters that HubSpot decodes in the
    URI are decoded here. Source:
    https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation
    """
    decoded = _DECODED.sub(lambda found: chr(int(found[1], 16)), uri)
    content = body if isinstance(body, bytes) else body.encode()
    signed = method.upper().encode() + decoded.encode() + content + timestamp.encode()
    return base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


def signed_v3(
    secret: str,
    *,
    method: str,
    uri: str,
    body: str | bytes,
    timestamp: str,
    signature: str,
    now: float | None = None,
) -> bool:
    """Tell whether HubSpot signed this request, and did so in the last five minutes.

    `now` is the time in seconds since 1970, by default the clock's. An empty secret signs nothing. The comparison
    takes constant time, so that a caller learns nothing from how long a refusal takes.
    """
    if not secret or not re.fullmatch(r"[0-9]{1,16}", timestamp):
        return False
    if abs((time.time() if now is None else now) - int(timestamp) / 1000) > MAX_AGE:
        return False
    expected = signature_v3(secret, method=method, uri=uri, body=body, timestamp=timestamp)
    return hmac.compare_digest(expected.encode(), signature.encode())


@cache
def _shared(token: str, base_url: str) -> HubSpot:
    return HubSpot(token, base_url=base_url)


def _path(kind: str, id: str = "") -> str:
    return f"/crm/v3/objects/{kind}" + (f"/{quote(str(id), safe='')}" if id else "")


def _page(answer: Mapping[str, Any]) -> Page:
    following = (answer.get("paging") or {}).get("next") or {}
    return Page(tuple(answer.get("results", ())), str(following.get("after", "")))


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise TransientServiceError(f"HubSpot answered {response.status_code} without JSON") from error


def _reason(response: httpx.Response) -> str:
    try:
        told = response.json()
    except ValueError:
        return response.text
    return str(told.get("message") or told) if isinstance(told, dict) else str(told)
