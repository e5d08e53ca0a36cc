"""HTTP under ASGI: each request in one thread of a pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.contrib.auth.models import User

from openvibe_site.threads import ThreadedHandler
from operators.models import ApiToken, Operator, Project

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice_token(registered: dict[str, Operator], project: Project, alice: User) -> str:
    key = ApiToken.new_key()
    ApiToken.objects.create(key_sha256=ApiToken.fingerprint(key), name="test", project=project, user=alice)
    return key


async def ask(path: str, *, method: str = "GET", body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
    """Return status, headers and body of an answer."""
    named = {"host": "localhost", **(headers or {})}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
    }
    caller = ApplicationCommunicator(ThreadedHandler(), scope)
    await caller.send_input({"type": "http.request", "body": body[:3], "more_body": True})
    await caller.send_input({"type": "http.request", "body": body[3:]})
    start = await caller.receive_output(timeout=10)
    content = b""
    while True:
        part = await caller.receive_output(timeout=10)
        content += part.get("body", b"")
        if not part.get("more_body"):
            break
    await caller.wait(10)
    return start["status"], dict(start["headers"]), content


async def test_a_view_is_answered() -> None:
    status, _, content = await ask("/healthz")
    assert (status, content) == (200, b'{"status": "ok"}')


async def test_a_body_in_parts_arrives_whole() -> None:
    status, _, content = await ask("/v1/operators/x/activate", method="POST", body=b"{not json")
    assert status == 401
    assert b"credentials" in content


async def test_a_body_without_a_length_is_read_all_the_same(alice_token: str) -> None:
    headers = {"authorization": f"Bearer {alice_token}"}
    status, _, content = await ask("/v1/operators/company_intel/activate", method="POST", body=b"[]", headers=headers)
    assert status == 400, content
    assert b"object" in content


async def test_a_body_that_is_too_large_is_refused() -> None:
    status, _, content = await ask("/healthz", method="POST", body=b"x" * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1))
    assert status == 413
    assert b"bytes" in content


async def test_a_program_is_told_of_it_by_a_problem() -> None:
    body = b"x" * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
    status, headers, content = await ask("/v1/operators/company_intel/activate", method="POST", body=body)
    assert (status, headers[b"Content-Type"]) == (413, b"application/problem+json")
    assert json.loads(content)["title"] == "too_large"


async def test_a_file_is_sent_whole_and_without_a_warning() -> None:
    path = Path(settings.STATICFILES_DIRS[0]) / "icons.svg"
    status, headers, content = await ask("/static/icons.svg")
    assert (status, content) == (200, path.read_bytes())
    assert headers[b"Content-Type"].startswith(b"image/svg")


async def test_a_head_of_a_file_has_no_body() -> None:
    status, _, content = await ask("/static/icons.svg", method="HEAD")
    assert (status, content) == (200, b"")


async def test_a_head_of_what_is_sent_in_parts_has_no_body() -> None:
    status, headers, content = await ask("/v1/schema/", method="HEAD")
    assert (status, content) == (200, b"")
    assert int(headers[b"Content-Length"]) > 64 * 1024


async def test_a_head_of_a_stream_ends(alice_token: str) -> None:
    headers = {"authorization": f"Bearer {alice_token}"}
    status, told, content = await ask("/v1/events/stream", method="HEAD", headers=headers)
    assert (status, content) == (200, b"")
    assert told[b"Content-Type"] == b"text/event-stream"


async def test_an_unknown_host_is_refused() -> None:
    status, _, _ = await ask("/healthz", headers={"host": "evil.example"})
    assert status == 400


async def test_a_caller_who_leaves_before_the_body_is_there_gets_nothing() -> None:
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    caller = ApplicationCommunicator(ThreadedHandler(), scope)
    await caller.send_input({"type": "http.disconnect"})
    await caller.wait(10)
    assert await caller.receive_nothing()
