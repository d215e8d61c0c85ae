"""The load generator: a closed loop with so many calls in flight, and an open one with Poisson arrivals.

In the open loop a latency is counted from the moment at which the call was due, whenever it could be sent, so a stalled
service cannot hide the calls that it kept waiting (no coordinated omission). asyncio wakes up to a millisecond late,
and that is counted too: alike for everybody. Knows no service.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter


@dataclass(frozen=True, slots=True)
class Order:
    """What a client process is told to do."""

    kind: str = "raw"
    """See work.py."""
    call: str = "single"
    """single: an image a call; map: the client's way for very many; idle: nothing; others are their clients' own."""
    in_flight: int = 1
    """Calls under way at once in a closed loop; of a map, images."""
    seconds: float = 2.0
    rate: float = 0.0
    """Above 0: an open loop, so many images a second."""
    most: int = 0
    """Above 0: no more images than these."""


@dataclass(slots=True)
class Report:
    """What came of it."""

    images: int = 0
    seconds: float = 0.0
    """From the first call to the last answer."""
    sent: int = 0
    received: int = 0
    """Bytes of images and maps, without anybody's framing."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each call, where calls can be told apart."""
    failed: int = 0
    error: str = ""
    """The last one's."""
    batch_sizes: list[int] = field(default_factory=list)
    """Of each image, where the service tells: the images in the pass it rode in."""
    waits: list[float] = field(default_factory=list)
    """Of each image, where the service tells: seconds until the device took it."""
    causes: list[str] = field(default_factory=list)
    """Of each image, where the service tells: why no more images were in that pass."""
    images_a_job: int = 1
    in_flight: int = 0
    """The most images that were under way at once, where the client chooses them itself."""

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds if self.seconds else 0.0


Call = Callable[[Report], Awaitable[None]]
"""Does one call and adds its images and bytes to the report."""


async def run(call: Call, order: Order) -> Report:
    """The loop that the order asks for."""
    report = Report()
    began = perf_counter()
    if order.rate:
        await _open(call, order, report)
    else:
        await _closed(call, order, report)
    report.seconds = perf_counter() - began
    return report


async def _closed(call: Call, order: Order, report: Report) -> None:
    ends = perf_counter() + order.seconds
    left = order.most or -1

    async def worker() -> None:
        nonlocal left
        while left and (now := perf_counter()) < ends:
            left -= 1
            await _timed(call, report, now)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(order.in_flight):
            tasks.create_task(worker())


async def _open(call: Call, order: Order, report: Report) -> None:
    due = began = perf_counter()
    chance = random.Random(1)
    async with asyncio.TaskGroup() as tasks:
        while (due := due + chance.expovariate(order.rate)) < began + order.seconds:
            await asyncio.sleep(due - perf_counter())
            tasks.create_task(_timed(call, report, due))


async def _timed(call: Call, report: Report, since: float) -> None:
    try:
        await call(report)
    except Exception as error:  # noqa: BLE001 - counted, told in the table
        report.failed += 1
        report.error = f"{type(error).__name__}: {error}"
        await asyncio.sleep(0.01)
    else:
        report.latencies.append(perf_counter() - since)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
