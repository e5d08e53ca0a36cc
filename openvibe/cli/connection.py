"""A running OpenVibe, asked over REST."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from openvibe.errors import OpenVibeError, SetupError

PATIENCE = 30.0


class Unreachable(OpenVibeError):
    """Nobody answers at the address."""


class Refused(OpenVibeError):
    """The server said no; the message is its reason."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Server:
    """An address and the token to call it with."""

    url: str
    client: httpx.Client

    def get(self, path: str, **parameters: Any) -> Any:
        """Read; raises `Refused` or `Unreachable`."""
        return self._call("GET", path, params=parameters)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask for something to be done; raises `Refused` or `Unreachable`."""
        return self._call("POST", path, json=body)

    def operator(self, operator_id: str) -> dict[str, Any]:
        """Return one operator, whole."""
        found: dict[str, Any] = self.get(f"/operators/{operator_id}")
        return found

    def operator_ids(self) -> list[str]:
        """Return the ids of all operators."""
        return [item["id"] for item in self.get("/operators")["operators"]]

    def run_path(self, run: str) -> str:
        """Return the path of a run, told by its id or as `<operator>/<run>`."""
        operator_id, _, run_id = run.rpartition("/")
        for candidate in [operator_id] if operator_id else self.operator_ids():
            try:
                self.get(path := f"/operators/{candidate}/runs/{run_id}")
            except Refused as error:
                if error.status != httpx.codes.NOT_FOUND:
                    raise
            else:
                return path
        raise Refused(f"There is no run {run!r} at {self.url}; `openvibe runs` lists those that there are", 404)

    def _call(self, method: str, path: str, **given: Any) -> Any:
        try:
            answer = self.client.request(method, f"{self.url}/v1{path}", **given)
        except httpx.HTTPError as error:
            raise Unreachable(
                f"Nobody answers at {self.url} ({error}): start OpenVibe with `openvibe serve`, or name another "
                "address with --url or OPENVIBE_URL."
            ) from error
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise SetupError(f"{self.url} does not take the token: set OPENVIBE_TOKEN, or OPENVIBE_HOME to its home.")
        try:
            body = answer.json()
        except ValueError as error:
            raise Refused(
                f"{self.url} answers {answer.status_code} and no JSON; is it an OpenVibe?", answer.status_code
            ) from error
        if answer.is_error:
            raise Refused(reason(body, answer.status_code), answer.status_code)
        return body


def connect(url: str = "") -> Server:
    """Return the server at an address: the given one, else `OPENVIBE_URL`, else this machine's `OPENVIBE_PORT`.

    Raises:
        SetupError: the address is none, or there is no token to call it with.
    """
    chosen = (url or os.environ.get("OPENVIBE_URL", "").strip() or _own_url()).rstrip("/")
    # No proxy stands between this machine and itself, whatever the environment says.
    own = _host(chosen) in ("127.0.0.1", "localhost", "::1")
    headers = {"Authorization": f"Bearer {_token()}"}
    return Server(chosen, httpx.Client(headers=headers, timeout=PATIENCE, trust_env=not own))


def reason(body: Any, status: int) -> str:
    """Return why a server said no, as the body of its answer tells it."""
    detail = body.get("detail") if isinstance(body, dict) else None
    errors = body.get("errors", ()) if isinstance(body, dict) else ()
    told = "; ".join(f"{item['field']}: {item['message']}" for item in errors if item.get("message") not in str(detail))
    return " ".join(filter(None, [str(detail or f"The server answered {status}"), f"({told})" if told else ""]))


def _host(address: str) -> str:
    try:
        url = httpx.URL(address)
        # What no name server may be asked for would only show when somebody calls.
        host = url.raw_host.decode().encode("idna").decode()
    except (httpx.InvalidURL, UnicodeError):
        host = ""
    if not host or url.scheme not in ("http", "https"):
        raise SetupError(f"{address!r} is no address: set --url or OPENVIBE_URL to one such as http://127.0.0.1:8000.")
    return host


def _own_url() -> str:
    return f"http://127.0.0.1:{os.environ.get('OPENVIBE_PORT', '').strip() or 8000}"


def _token() -> str:
    if token := os.environ.get("OPENVIBE_TOKEN", "").strip():
        return _sendable(token, "OPENVIBE_TOKEN")
    home = Path(os.environ.get("OPENVIBE_HOME", "").strip() or ".openvibe").expanduser()
    try:
        return _sendable((home / "token").read_text("utf-8", errors="replace").strip(), str(home / "token"))
    except OSError as error:
        raise SetupError(
            f"There is no token in {home.resolve()}: start OpenVibe there with `openvibe serve`, set OPENVIBE_HOME to "
            "its home, or set OPENVIBE_TOKEN."
        ) from error


def _sendable(token: str, where: str) -> str:
    if not (token.isascii() and token.isprintable()):
        raise SetupError(f"{where} holds no token: one is of ASCII's letters, digits and signs.")
    return token
