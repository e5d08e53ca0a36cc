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

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_sockets = URLRouter(websocket_urlpatterns)


async def _straight(scope: Scope, receive: Receive, _: Send) -> None:
    """Let a socket send past the session middleware, which looks at each of its frames for a change of the session."""
    await _sockets(scope, receive, scope["server_send"])


_guarded = AllowedHostsOriginValidator(AuthMiddlewareStack(_straight))


async def _websocket(scope: Scope, receive: Receive, send: Send) -> None:
    await _guarded({**scope, "server_send": send}, receive, send)


lifespan.end_with_daphne()
_router = ProtocolTypeRouter({"http": ThreadedHandler(), "websocket": _websocket})


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one connection; the first one gives the bus its event loop. A server's lifespan is one, too."""
    link.adopt(asyncio.get_running_loop())
    await (lifespan.live if scope["type"] == "lifespan" else _router)(scope, receive, send)
