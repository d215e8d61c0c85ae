"""Calls that wait together are made as one, and each caller gets what is its own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from convlens.server.coalescer import Together


class Slow:
    """A call that goes on once it is let, and remembers what it was given."""

    def __init__(self):
        self.given = []
        self.begun = threading.Event()
        self.may = threading.Event()

    def __call__(self, items):
        self.given.append(list(items))
        self.begun.set()
        assert self.may.wait(10)
        return [ValueError(item) if item < 0 else 10 * item for item in items]


async def held(slow, **options):
    """Calls of which the first is under way and the others wait."""
    calls = Together(asyncio.get_running_loop(), "test", slow, **options)
    futures = [calls(0)]
    await asyncio.to_thread(slow.begun.wait)
    return calls, futures


async def test_what_waits_while_a_call_is_under_way_goes_together_and_each_gets_its_own():
    slow = Slow()
    calls, futures = await held(slow)
    futures += [calls(item) for item in (1, -2, 3)]
    slow.may.set()
    assert await asyncio.gather(*futures, return_exceptions=True) == [0, 10, futures[2].exception(), 30]
    assert futures[2].exception().args == (-2,)
    assert slow.given == [[0], [1, -2, 3]]
    calls.close()


async def test_no_more_go_together_than_a_call_takes():
    slow = Slow()
    calls, futures = await held(slow, most=2)
    futures += [calls(item) for item in (1, 2, 3)]
    slow.may.set()
    assert await asyncio.gather(*futures) == [0, 10, 20, 30]
    assert slow.given == [[0], [1, 2], [3]]
    calls.close()


async def test_a_caller_who_went_away_takes_nothing_from_the_others():
    slow = Slow()
    calls, futures = await held(slow)
    futures += [calls(item) for item in (1, 2)]
    futures[1].cancel()
    slow.may.set()
    assert await futures[2] == 20
    calls.close()


async def test_what_a_call_raises_is_raised_to_all():
    def broken(items):
        raise ConnectionError("gone")

    calls = Together(asyncio.get_running_loop(), "test", broken)
    for future in (calls(1), calls(2)):
        with pytest.raises(ConnectionError, match="gone"):
            await future
    calls.close()


async def test_closing_makes_the_calls_that_wait_and_ends_every_thread():
    slow = Slow()
    slow.may.set()
    calls = Together(asyncio.get_running_loop(), "ends", slow, threads=3)
    futures = [calls(item) for item in range(5)]
    await asyncio.to_thread(calls.close)
    assert await asyncio.gather(*futures) == [0, 10, 20, 30, 40]
    assert not [it for it in threading.enumerate() if it.name == "ends"]
