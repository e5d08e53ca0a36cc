"""Notices that a stream has lost what others were asked over it."""

from __future__ import annotations

import logging
import math
import time

from openvibe.bus import Pull
from operators.services import forgotten
from operators.threads import aside

logger = logging.getLogger(__name__)

#: Seconds between two looks.
PAUSE = 30.0


class Questions:
    """What others were asked over one stream."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._looked_at = -math.inf

    async def look(self, pull: Pull) -> None:
        """Let be asked again what the stream has lost, now and then."""
        if not forgotten.questions(self._stream) or time.monotonic() - self._looked_at < PAUSE:
            return
        self._looked_at = time.monotonic()
        since = await pull.kept_since()
        if since is not None and (lost := await aside(forgotten.lost, self._stream, since)):
            logger.warning(
                "Stream %s has lost what it kept before %s; %d open waits ask again", self._stream, since, lost
            )
