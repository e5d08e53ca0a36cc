"""Programs that read streams of server-sent events."""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import urlencode

from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import User

from openvibe_site.threads import ThreadedHandler
from operators.models import ApiToken, Membership

STREAM, AGENTS = "/v1/events/stream", "/api/agents/events"


class Reading:
    """One program that reads a stream through the server's own handler."""

    def __init__(
        self, key: str, path: str, query: dict[str, Any], headers: dict[str, str], *,
        server: ThreadedHandler | None = None,
    ) -> None:  # fmt: skip
        named = {"host": "localhost", "accept": "text/event-stream", **headers}
        if key:
            named["authorization"] = f"Bearer {key}"
        self.app = ApplicationCommunicator(
            server or ThreadedHandler(),
            {
                "type": "http", "http_version": "1.1", "method": "GET", "path": path,
                "query_string": urlencode(query).encode(), "server": ("localhost", 80), "client": ("127.0.0.1", 1),
                "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
            },
        )  # fmt: skip
        self.text = ""

    async def open(self) -> dict[bytes, bytes]:
        await self.app.send_input({"type": "http.request", "body": b""})
        start = await self.app.receive_output(timeout=10)
        self.status = start["status"]
        return dict(start["headers"])

    async def until(self, text: str) -> str:
        deadline = time.monotonic() + 20
        while text not in self.text:
            part = await self.app.receive_output(timeout=max(deadline - time.monotonic(), 0.01))
            self.text += part.get("body", b"").decode()
            assert part.get("more_body") or text in self.text, f"The stream ended before {text!r}: {self.text}"
        return self.text

    async def ended(self) -> str:
        while True:
            part = await self.app.receive_output(timeout=15)
            self.text += part.get("body", b"").decode()
            if not part.get("more_body"):
                return self.text

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(data) for data in re.findall(r"^data: (.*)$", self.text, re.MULTILINE)]

    @property
    def seqs(self) -> list[int]:
        numbers = [int(number) for number in re.findall(r"^id: (\d+)$", self.text, re.MULTILINE)]
        assert numbers == [event["seq"] for event in self.events]
        return numbers

    async def leave(self) -> None:
        await self.app.send_input({"type": "http.disconnect"})
        await self.app.wait(10)


@sync_to_async
def key(user: User) -> str:
    key = ApiToken.new_key()
    project = Membership.objects.get(user=user).project
    ApiToken.objects.create(key_sha256=ApiToken.fingerprint(key), name="test", project=project, user=user)
    return key
