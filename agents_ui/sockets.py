"""Websockets at the same paths as the pages: guard, join, pass frames on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth import get_user_model
from django.db import DatabaseError
from django.urls import path, re_path

from agents_ui.live import hub
from agents_ui.sending import Socket
from openvibe.protocol import subjects
from operators.models import Project, Run
from operators.numbers import natural

logger = logging.getLogger(__name__)

#: Close code for a page that may not be watched, or is not there: the same, as with pages.
NOT_FOUND = 4404
#: Close codes for a socket that fell behind, and for one whose user sees other channels now; it may come back at once.
FELL_BEHIND = 4408
CHANGED = 4409
#: How often an open socket makes sure that its user may still look, and its page hears that it lives, in seconds.
RIGHTS_SECONDS = 30.0
#: What a page hears when there is nothing to show. It takes a socket for lost on which it hears nothing for long.
BEAT = " "


class Page(AsyncWebsocketConsumer):
    """One page's socket. Subclasses say which channels it hears."""

    hints = ""

    async def connect(self) -> None:
        """Let in who may look, from the number that the page already shows."""
        self._leaving: list[Callable[[], object]] = []
        channels = await database_sync_to_async(self.channels)(self.scope["user"])
        await self.accept()
        if not channels:
            await self.close(NOT_FOUND)
            return
        # What `send` does, without its two more coroutines for every socket and frame.
        socket = Socket(self.base_send, partial(self.close, FELL_BEHIND), after=self._after(), hints=self.hints)
        watching = asyncio.create_task(self._watch_rights(channels, socket))
        joined = [hub.join(project_id, channel, socket) for project_id, channel in channels]
        self._leaving = [*joined, socket.leave, watching.cancel]

    async def disconnect(self, code: int) -> None:
        """Leave every channel."""
        for leave in self._leaving:
            leave()

    def channels(self, user: Any) -> list[tuple[str, str]]:
        """Return the project and name of each channel that the page hears; none if the user may not look."""
        return [(project_id, subjects.PUBLIC) for project_id in _projects(user)]

    def _after(self) -> int:
        return natural(self._asked("after")) or 0

    def _asked(self, name: str) -> str:
        query: bytes = self.scope["query_string"]
        return parse_qs(query.decode(errors="replace")).get(name, [""])[0]

    async def _watch_rights(self, channels: list[tuple[str, str]], socket: Socket) -> None:
        """Close when the user may no longer look, deactivated or no member any more, or may look at more."""
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(RIGHTS_SECONDS)
                socket.send(BEAT)
                now = await database_sync_to_async(self._channels_now)(channels)
                if now != channels:
                    await self.close(CHANGED if now else NOT_FOUND)
                    return

    def _channels_now(self, before: list[tuple[str, str]]) -> list[tuple[str, str]]:
        try:
            user = get_user_model().objects.filter(pk=self.scope["user"].pk, is_active=True).first()
            return self.channels(user) if user else []
        except DatabaseError as error:
            # Asked again next time; a watch over rights that ends here would let its socket live for ever.
            logger.warning("The rights of a socket could not be looked up: %s", error)
            return before


class RunsPage(Page):
    """The list of runs: it reads itself again when something happened."""

    hints = "runs-changed"


class ApprovalsPage(Page):
    """The open gates: likewise."""

    hints = "gates-changed"


class GeneralPage(Page):
    """The general channel of one project."""

    def channels(self, user: Any) -> list[tuple[str, str]]:
        """Return the public channel of the project that the page names, or of the user's first."""
        return [(name, subjects.PUBLIC) for name in self._named(user)]

    def _named(self, user: Any) -> list[str]:
        asked = self._asked("project")
        return [name for name in _projects(user) if name == asked or not asked][:1]


class MinePage(GeneralPage):
    """The user's own channel of one project."""

    def channels(self, user: Any) -> list[tuple[str, str]]:
        """Return the user's channel of that project: nobody can name another one's."""
        return [(name, subjects.personal(user.get_username())) for name in self._named(user)]


class RunPage(Page):
    """One run's thread."""

    def channels(self, user: Any) -> list[tuple[str, str]]:
        """Return the run's thread, if the run is the user's to see."""
        run_id = self.scope["url_route"]["kwargs"]["run_id"]
        run = Run.objects.visible_to(user).filter(id=run_id).values_list("project_id").first()
        return [(run[0], subjects.thread(run_id))] if run else []


class NoPage(Page):
    """A path at which there is nothing."""

    def channels(self, user: Any) -> list[tuple[str, str]]:
        """Return none, whoever looks."""
        return []


def _projects(user: Any) -> list[str]:
    if not user.is_authenticated:
        return []
    return Project.objects.visible_to(user).names()


websocket_urlpatterns = [
    path("ws/agents/", RunsPage.as_asgi()),
    path("ws/agents/general/", GeneralPage.as_asgi()),
    path("ws/agents/approvals/", ApprovalsPage.as_asgi()),
    path("ws/agents/mine/", MinePage.as_asgi()),
    path("ws/agents/<slug:run_id>/", RunPage.as_asgi()),
    re_path("", NoPage.as_asgi()),
]
