"""The coalescer runs items that wait at the same time as one batch, and gives each caller its own result."""

from __future__ import annotations

import asyncio
import threading

import pytest

from convlens.server.job_gateway import Coalescer


class SlowFunction:
    """Blocks until `proceed` is set, and records its batches."""

    def __init__(self):
        self.batches = []
        self.started = threading.Event()
        self.proceed = threading.Event()

    def __call__(self, items):
        self.batches.append(list(items))
        self.started.set()
        assert self.proceed.wait(10)
        return [ValueError(item) if item < 0 else 10 * item for item in items]


async def blocked_coalescer(slow, **options):
    """A coalescer whose first batch is running, so that further items wait."""
    coalescer = Coalescer(asyncio.get_running_loop(), "test", slow, **options)
    futures = [coalescer.submit(0)]
    await asyncio.to_thread(slow.started.wait)
    return coalescer, futures


async def test_items_that_wait_during_a_batch_form_the_next_one_and_each_gets_its_result():
    slow = SlowFunction()
    coalescer, futures = await blocked_coalescer(slow)
    futures += [coalescer.submit(item) for item in (1, -2, 3)]
    slow.proceed.set()
    assert await asyncio.gather(*futures, return_exceptions=True) == [0, 10, futures[2].exception(), 30]
    assert futures[2].exception().args == (-2,)
    assert slow.batches == [[0], [1, -2, 3]]
    coalescer.close()


async def test_a_batch_has_at_most_max_batch_items():
    slow = SlowFunction()
    coalescer, futures = await blocked_coalescer(slow, max_batch=2)
    futures += [coalescer.submit(item) for item in (1, 2, 3)]
    slow.proceed.set()
    assert await asyncio.gather(*futures) == [0, 10, 20, 30]
    assert slow.batches == [[0], [1, 2], [3]]
    coalescer.close()


async def test_a_cancelled_future_does_not_affect_the_others():
    slow = SlowFunction()
    coalescer, futures = await blocked_coalescer(slow)
    futures += [coalescer.submit(item) for item in (1, 2)]
    futures[1].cancel()
    slow.proceed.set()
    assert await futures[2] == 20
    coalescer.close()


async def test_an_exception_of_the_function_is_raised_by_every_future():
    def broken(items):
        raise ConnectionError("gone")

    coalescer = Coalescer(asyncio.get_running_loop(), "test", broken)
    for future in (coalescer.submit(1), coalescer.submit(2)):
        with pytest.raises(ConnectionError, match="gone"):
            await future
    coalescer.close()


async def test_close_runs_pending_items_and_stops_every_thread():
    slow = SlowFunction()
    slow.proceed.set()
    coalescer = Coalescer(asyncio.get_running_loop(), "ends", slow, threads=3)
    futures = [coalescer.submit(item) for item in range(5)]
    await asyncio.to_thread(coalescer.close)
    assert await asyncio.gather(*futures) == [0, 10, 20, 30, 40]
    assert not [thread for thread in threading.enumerate() if thread.name == "ends"]
