"""Lets LangGraph call a saver on the thread that plays, where the saver only notes what it is told.

LangGraph hands each call of a checkpointer to a pool of threads that it makes anew for each play, so that no step waits
for a database. A saver that collects has none to wait for: the threads cost more than all else that LangGraph does.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import _loop
from langgraph.pregel._executor import BackgroundExecutor

T = TypeVar("T")

#: Stands among a play's configurable values where LangGraph's calls are to stay on its thread. Like all names that
#: begin so it is kept out of checkpoints.
KEY = "__openvibe_inline"


class Executor(BackgroundExecutor):
    """LangGraph's executor, which asks for no thread where `KEY` is set. Branches that play at once need threads."""

    def __init__(self, config: RunnableConfig) -> None:
        super().__init__(config)
        self._inline = bool(config["configurable"].get(KEY))

    def submit(self, fn: Callable[..., T], *args: Any, __reraise_on_exit__: bool = True, **options: Any) -> Future[T]:
        """Call it, now or on a thread, and return what comes of it."""
        if not self._inline:
            submitted: Future[T] = super().submit(fn, *args, __reraise_on_exit__=__reraise_on_exit__, **options)
            return submitted
        called: Future[T] = Future()
        given = {name: value for name, value in options.items() if not name.startswith("__")}
        try:
            called.set_result(copy_context().run(fn, *args, **given))
        except BaseException as error:
            called.set_exception(error)
        self.tasks[called] = (False, __reraise_on_exit__)
        called.add_done_callback(self.done)
        return called

    def __enter__(self) -> Callable[..., Any]:
        return self.submit


# Where LangGraph takes it from for each play. Without this, as in a LangGraph that makes it elsewhere, runs are played
# all the same, only slower; a test tells.
vars(_loop)["BackgroundExecutor"] = Executor
