"""Tasks that lose a cancellation, as Python 3.11's `wait_for` does when it meets a result, end all the same."""

import asyncio

import pytest

from openvibe import cancelling
from openvibe.bus.service import Tasks


async def stubborn(lost: int) -> str:
    """Go on after so many cancellations as if nothing had been."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost -= 1
            if lost < 0:
                raise


async def test_a_cancellation_that_is_lost_is_said_again():
    task = asyncio.create_task(stubborn(lost=2))
    await asyncio.sleep(0)

    await cancelling.cancel([task], pause=0.01)

    assert task.cancelled()


async def test_who_is_cancelled_while_it_cancels_leaves_nobody_behind():
    task = asyncio.create_task(stubborn(lost=2))
    await asyncio.sleep(0)
    ending = asyncio.create_task(cancelling.cancel([task], pause=0.01))
    await asyncio.sleep(0)

    ending.cancel()
    await asyncio.wait([ending])

    assert ending.cancelled()
    assert task.cancelled()


async def test_work_that_takes_too_long_has_ended_when_that_is_told():
    with pytest.raises(TimeoutError):
        await cancelling.within(0.01, stubborn(lost=1))

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_work_within_its_time_returns_or_raises():
    async def say():
        return "done"

    async def fail():
        raise ValueError("no")

    assert await cancelling.within(60, say()) == "done"
    with pytest.raises(ValueError, match="no"):
        await cancelling.within(60, fail())


async def test_who_waits_for_work_and_is_cancelled_takes_it_along():
    waiting = asyncio.create_task(cancelling.within(60, stubborn(lost=1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait([waiting])

    assert waiting.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_who_answers_a_request_that_is_given_up_ends_in_his_own_time():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answer():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(2 * cancelling.PAUSE)
            ended.set()

    tasks = Tasks()
    tasks.start(answer())
    await begun.wait()

    await tasks.cancel()

    assert ended.is_set()
