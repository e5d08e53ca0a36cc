"""The ASGI application: Django for HTTP, Channels for websockets, on one event loop with the bus."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "openvibe_site.settings")
django.setup()

from channels.auth import AuthMiddlewareStack  # noqa: E402  # Django must be set up first
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402

from agents_ui.sockets import websocket_urlpatterns  # noqa: E402
from openvibe_site import lifespan  # noqa: E402
from openvibe_site.threads import ThreadedHandler  # noqa: E402
from operators.link import link  # noqa: E402

_sockets = URLRouter(websocket_urlpatterns)


async def _websocket(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Serve a socket to a known user; its frames go past the session middleware, which looks at each for a change."""

    async def straight(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], _: Any) -> None:
        await _sockets(scope, receive, send)

    await AllowedHostsOriginValidator(AuthMiddlewareStack(straight))(scope, receive, send)


_router = ProtocolTypeRouter({"http": ThreadedHandler(), "websocket": _websocket})


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Answer one connection; the first one gives the bus its event loop. A server's lifespan is one, too."""
    link.adopt(asyncio.get_running_loop())
    await (lifespan.live if scope["type"] == "lifespan" else _router)(scope, receive, send)
