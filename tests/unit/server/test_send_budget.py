"""The budget for answers: who has room, who waits, whose turn it is, and what is left at the end."""

from __future__ import annotations

import asyncio

from convlens.server.transport.send_budget import CONNECTION_SHARE, COPIES, SMALL_BYTES, SendBudget

PART = 10_000
TOTAL = 4 * CONNECTION_SHARE * PART * COPIES
"""A connection has room for four parts."""


def budget(total=TOTAL, share=1.0) -> SendBudget:
    return SendBudget(total, share)


async def admitted(tasks) -> list[bool]:
    """Which of these have room."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def test_a_connection_waits_at_its_share_while_others_have_room():
    it = budget()
    tasks = [asyncio.create_task(it.admit("a", "", PART)) for _ in range(6)]
    other = asyncio.create_task(it.admit("b", "", PART))
    assert await admitted([*tasks, other]) == [True] * 4 + [False] * 2 + [True]
    it.release(tasks[0].result())
    assert await admitted(tasks) == [True] * 5 + [False]
    tasks[5].cancel()


async def test_a_tenant_waits_at_its_share():
    it = budget(share=2 * PART * COPIES / TOTAL)
    tasks = [asyncio.create_task(it.admit(str(n), "acme", PART)) for n in range(3)]
    other = asyncio.create_task(it.admit("3", "other", PART))
    assert await admitted([*tasks, other]) == [True, True, False, True]
    tasks[2].cancel()


async def test_connections_have_turns():
    it = budget(PART * COPIES)
    first = await it.admit("a", "", PART)
    waiting = [asyncio.create_task(it.admit(peer, "", PART)) for peer in "aab"]
    assert await admitted(waiting) == [False, False, False]
    it.release(first)
    assert await admitted(waiting) == [True, False, False]
    it.release(waiting[0].result())
    assert await admitted(waiting) == [True, False, True]
    it.release(waiting[2].result())
    assert await admitted(waiting) == [True, True, True]


async def test_small_parts_have_room_when_large_ones_have_none():
    large = 10 * SMALL_BYTES
    it = budget(40 * large * COPIES)
    tasks = [asyncio.create_task(it.admit(str(n), "", large)) for n in range(40)]
    small = asyncio.create_task(it.admit("small", "", SMALL_BYTES))
    assert sum(await admitted(tasks)) == 30
    assert small.done()
    for task in tasks:
        task.cancel()


async def test_a_part_larger_than_every_bound_goes_alone():
    it = budget(1)
    first = await it.admit("a", "", PART)
    second = asyncio.create_task(it.admit("a", "", PART))
    assert await admitted([second]) == [False]
    it.release(first)
    assert await admitted([second]) == [True]


async def test_who_is_cancelled_leaves_nothing_behind():
    it = budget(PART * COPIES)
    first = await it.admit("a", "", PART)
    waiting = [asyncio.create_task(it.admit("a", "", PART)) for _ in range(3)]
    await admitted(waiting)
    waiting[0].cancel()
    it.release(first)  # its turn comes in the moment of its cancelling
    assert await admitted(waiting) == [True, True, False]
    it.release(waiting[1].result())
    assert await admitted(waiting) == [True, True, True]
