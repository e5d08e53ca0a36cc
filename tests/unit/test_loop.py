"""The one loop of a process: who may use it, what happens when the wait ends early, and what a fork gets."""

import asyncio
import contextvars
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from openvibe import loop
from openvibe.errors import SetupError


async def thread() -> threading.Thread:
    return threading.current_thread()


def test_every_coroutine_runs_on_the_same_background_thread():
    first, second = loop.run(thread()), loop.run(thread())
    assert first is second is not threading.current_thread()
    assert first.daemon


def test_threads_that_come_at_once_share_the_loop():
    found: list[threading.Thread] = []
    threads = [threading.Thread(target=lambda: found.append(loop.run(thread()))) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_results_and_errors_come_back():
    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise KeyError("lost")

    assert loop.run(answer()) == 42
    with pytest.raises(KeyError, match="lost"):
        loop.run(fail())


def test_a_coroutine_that_takes_too_long_is_cancelled():
    cancelled = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(TimeoutError):
        loop.run(wait(), timeout=0.01)
    assert cancelled.wait(5)


def test_the_callers_context_variables_are_seen():
    name = contextvars.ContextVar("name", default="nobody")
    name.set("Alice")

    async def read() -> str:
        return name.get()

    assert loop.run(read()) == "Alice"


def test_the_loops_own_thread_is_refused_rather_than_waiting_for_itself():
    async def nested() -> None:
        loop.run(thread())

    with pytest.raises(SetupError, match=r"thread.* was handed to the loop on the loop's own thread; await it instead"):
        loop.run(nested(), timeout=5)


def test_a_submitted_coroutine_runs_beside_its_caller():
    async def answer() -> int:
        return 42

    assert loop.submit(answer()).result(timeout=5) == 42


def run(script: str) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", textwrap.dedent(script)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_process_ends_quietly_although_its_loop_runs():
    done = run("""
        from openvibe import loop
        async def answer(): return 42
        print(loop.run(answer()))
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")


def test_a_forked_process_gets_a_loop_of_its_own():
    done = run("""
        import os, threading
        from openvibe import loop
        async def here(): return os.getpid()
        parent = loop.run(here())
        child = os.fork()
        if child == 0:
            assert loop.run(here(), timeout=5) == os.getpid() != parent
            raise SystemExit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert loop.run(here(), timeout=5) == parent
        print("both")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "both\n", "")
