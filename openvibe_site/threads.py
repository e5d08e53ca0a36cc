"""HTTP under ASGI with one thread hop a request.

All our views are synchronous. Django's own ASGI handler takes such a view through three hops between event loop and
threads and makes a new thread, hence a new database connection, for every request; under load the hops cost more than
the views. Here a request goes to a thread of a bounded pool with its body, and comes back as a response.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from django.conf import settings
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.db import close_old_connections
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import set_script_prefix

from openvibe_site import failures

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

#: How many requests are answered at once; more of them wait their turn.
THREADS = 16


class ThreadedHandler(ASGIHandler):
    """Django's views behind ASGI, each request in one thread of a pool."""

    def __init__(self) -> None:
        super().__init__()
        self._views = BaseHandler()
        self._views.load_middleware()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="http")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        loop = asyncio.get_running_loop()
        with body:
            response = await loop.run_in_executor(self._threads, self._answer, scope, body)
        if isinstance(response, StreamingHttpResponse) and not response.is_async:
            response.streaming_content = self._read(iter(response))
        try:
            if isinstance(response, StreamingHttpResponse) and response.is_async:
                await self._send_until_nobody_reads(response, receive, send)
            else:
                await self.send_response(response, send)
        finally:
            if response.streaming:
                await loop.run_in_executor(self._threads, response.close)

    async def _send_until_nobody_reads(self, response: StreamingHttpResponse, receive: Receive, send: Send) -> None:
        """Send a stream, which may have no end of its own, for as long as somebody is there."""
        sending = asyncio.ensure_future(self.send_response(response, send))
        leaving = asyncio.ensure_future(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            ended = await asyncio.gather(sending, leaving, return_exceptions=True)
        if isinstance(ended[0], Exception):
            raise ended[0]

    async def _read(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Read a file part by part in the threads that may wait for it."""
        loop = asyncio.get_running_loop()
        while (chunk := await loop.run_in_executor(self._threads, next, chunks, None)) is not None:
            yield chunk

    def _answer(self, scope: dict[str, Any], body: IO[bytes]) -> HttpResponseBase:
        set_script_prefix(scope.get("root_path", "") or "/")
        signals.request_started.send(sender=type(self), scope=scope)
        size = body.seek(0, os.SEEK_END)
        body.seek(0)
        if size > (settings.DATA_UPLOAD_MAX_MEMORY_SIZE or size):
            told = f"The body has {size} bytes; {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} are taken"
            return failures.too_large(scope["path"], told)
        request, refusal = self.create_request(scope, body)
        if request is None:
            assert refusal is not None
            return refusal
        # A chunked body comes without a length, and readers of the length would take it for none.
        request.META.setdefault("CONTENT_LENGTH", str(size))
        response: HttpResponseBase = self._views.get_response(request)
        if request.method == "HEAD":
            _empty(response)
        # Closing ends the request: its database connection may go on to the next one.
        if not response.streaming:
            response.close()
        elif isinstance(response, StreamingHttpResponse) and response.is_async:
            # It may last for hours, and the thread's connection goes on to the next request.
            close_old_connections()
        return response


def _empty(response: HttpResponseBase) -> None:
    """Take the body away. Daphne drops only its first part, and a stream of events would never end."""
    if isinstance(response, StreamingHttpResponse):
        response.streaming_content = ()
    elif isinstance(response, HttpResponse):
        response.content = b""
