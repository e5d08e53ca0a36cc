"""Who computes: of all the runs that a process plays, a few at a time.

The threads of a process share one interpreter. Hundreds of runs that wait for models cost it nothing, but of those that
could go on more than a few only take it away from each other, and from the thread that hears the bells. So a run has a
lane while the engine works for it: claims it, prepares its next step, commits. It leaves the lane while a node plays,
because nobody knows for what a node waits.

Who has come least far goes first: what a run asks of a model is answered while others compute. Nobody is kept waiting
for ever by that, since each thread plays one run to its end or to its wait.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from heapq import heappop, heappush

logger = logging.getLogger(__name__)

#: How many compute at once: one has the interpreter, and the others wait for the database.
MOST = 8
#: How long all lanes may stand still, in seconds, before one more is opened.
PATIENCE = 10.0


class Lanes:
    """Lets a few in at a time; the others wait for their turn, by rank, and among equals in the order of coming.

    If nobody has given a lane back for `patience` seconds, all who have one wait for something that does not come, such
    as a row that somebody has locked. For those who wait for a lane another one is opened then.
    """

    def __init__(self, most: int, *, patience: float = PATIENCE) -> None:
        self._free = most
        self._patience = patience
        self._given = 0
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, threading.Lock]] = []

    def take(self, rank: int) -> None:
        """Wait for a lane; the lowest rank comes in first."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            door = threading.Lock()
            door.acquire()
            heappush(self._waiting, (rank, next(self._order), door))
            given = self._given
        while not door.acquire(timeout=self._patience):
            with self._lock:
                if self._given == given and self._waiting:
                    logger.warning("No run has left its lane for %g s; one more is opened", self._patience)
                    self._pass_on()
                given = self._given

    def give(self) -> None:
        """Give a lane back, or on to who waits for one."""
        with self._lock:
            self._pass_on()

    def _pass_on(self) -> None:
        self._given += 1
        if self._waiting:
            heappop(self._waiting)[2].release()
        else:
            self._free += 1


@dataclass
class _Lane:
    """What one play has of the lanes: its rank, and how many of its nodes play at the moment."""

    lanes: Lanes
    rank: int = 0
    playing: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def leave(self) -> None:
        with self.lock:
            self.playing += 1
            if self.playing == 1:
                self.lanes.give()

    def come_back(self) -> None:
        with self.lock:
            self.playing -= 1
            if self.playing == 0:
                self.rank += 1
                self.lanes.take(self.rank)


_process = Lanes(MOST)
_current: ContextVar[_Lane | None] = ContextVar("openvibe_lane", default=None)


@contextmanager
def taken(lanes: Lanes = _process) -> Iterator[None]:
    """Compute inside the block; begin it when there is a lane."""
    lane = _Lane(lanes)
    lanes.take(lane.rank)
    before = _current.set(lane)
    try:
        yield
    finally:
        _current.reset(before)
        lanes.give()


@contextmanager
def left() -> Iterator[None]:
    """Let others compute while the block plays, and wait for a lane at its end; outside of `taken` do nothing."""
    lane = _current.get()
    if lane is None:
        yield
        return
    lane.leave()
    try:
        yield
    finally:
        lane.come_back()
