"""Synchronous work for coroutines: the database refuses to be asked on an event loop's own thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import connection

P = ParamSpec("P")
T = TypeVar("T")


async def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function on a thread of its own, and give its database connection back."""

    def call() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            if connection.vendor != "sqlite":
                connection.close()

    return await sync_to_async(call, thread_sensitive=False)()
