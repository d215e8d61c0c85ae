"""The send budget: shares of connections and tenants, turns among waiting connections, and cancellation."""

from __future__ import annotations

import asyncio

from convlens.server.transport.send_budget import CONNECTION_SHARE, COPIES, SMALL_BYTES, SendBudget

PART = 10_000
TOTAL = 4 * CONNECTION_SHARE * PART * COPIES
"""Of this total, a connection's share is four parts."""


def make_budget(total=TOTAL, share=1.0) -> SendBudget:
    return SendBudget(total, share)


async def admitted(tasks) -> list[bool]:
    """Whether each of these parts is admitted by now."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def test_a_connection_waits_at_its_share_while_others_are_admitted():
    budget = make_budget()
    tasks = [asyncio.create_task(budget.admit("a", "", PART)) for _ in range(6)]
    other = asyncio.create_task(budget.admit("b", "", PART))
    assert await admitted([*tasks, other]) == [True] * 4 + [False] * 2 + [True]
    budget.release(tasks[0].result())
    assert await admitted(tasks) == [True] * 5 + [False]
    tasks[5].cancel()


async def test_a_tenant_waits_at_its_share():
    budget = make_budget(share=2 * PART * COPIES / TOTAL)
    tasks = [asyncio.create_task(budget.admit(str(n), "acme", PART)) for n in range(3)]
    other = asyncio.create_task(budget.admit("3", "other", PART))
    assert await admitted([*tasks, other]) == [True, True, False, True]
    tasks[2].cancel()


async def test_waiting_connections_take_turns():
    budget = make_budget(PART * COPIES)
    first = await budget.admit("a", "", PART)
    waiting = [asyncio.create_task(budget.admit(peer, "", PART)) for peer in "aab"]
    assert await admitted(waiting) == [False, False, False]
    budget.release(first)
    assert await admitted(waiting) == [True, False, False]
    budget.release(waiting[0].result())
    assert await admitted(waiting) == [True, False, True]
    budget.release(waiting[2].result())
    assert await admitted(waiting) == [True, True, True]


async def test_small_parts_are_admitted_when_large_ones_are_not():
    large = 10 * SMALL_BYTES
    budget = make_budget(40 * large * COPIES)
    tasks = [asyncio.create_task(budget.admit(str(n), "", large)) for n in range(40)]
    small = asyncio.create_task(budget.admit("small", "", SMALL_BYTES))
    assert sum(await admitted(tasks)) == 30
    assert small.done()
    for task in tasks:
        task.cancel()


async def test_a_part_larger_than_every_bound_is_sent_alone():
    budget = make_budget(1)
    first = await budget.admit("a", "", PART)
    second = asyncio.create_task(budget.admit("a", "", PART))
    assert await admitted([second]) == [False]
    budget.release(first)
    assert await admitted([second]) == [True]


async def test_a_cancelled_wait_leaves_nothing_behind():
    budget = make_budget(PART * COPIES)
    first = await budget.admit("a", "", PART)
    waiting = [asyncio.create_task(budget.admit("a", "", PART)) for _ in range(3)]
    await admitted(waiting)
    waiting[0].cancel()
    budget.release(first)  # its turn comes just as it is cancelled
    assert await admitted(waiting) == [True, True, False]
    budget.release(waiting[1].result())
    assert await admitted(waiting) == [True, True, True]
