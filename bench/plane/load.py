"""The load generator: a closed loop with a number of calls in flight, and an open one with Poisson arrivals.

In the open loop a call's latency counts from the moment at which it was due, so a stalled service cannot hide the calls
that it delayed (no coordinated omission). asyncio wakes up to a millisecond late, which is counted for every service.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter


@dataclass(frozen=True, slots=True)
class Workload:
    """The work of a client process."""

    kind: str = "raw"
    """See work.py."""
    call: str = "single"
    """single: one image per call; map: the client's bulk call; idle: nothing; others are specific to a client."""
    in_flight: int = 1
    """Calls in flight in a closed loop; for map, images."""
    seconds: float = 2.0
    rate: float = 0.0
    """Above 0: an open loop with this many images per second."""
    most: int = 0
    """Above 0: the most images."""


@dataclass(slots=True)
class Report:
    """The measurements of a workload."""

    images: int = 0
    seconds: float = 0.0
    """From the first call to the last answer."""
    sent: int = 0
    received: int = 0
    """Bytes of images and maps, without anybody's framing."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each call, where calls can be distinguished."""
    failed: int = 0
    error: str = ""
    """The last one's."""
    batch_sizes: list[int] = field(default_factory=list)
    """Of each image, where the service reports it: the size of its batch."""
    waits: list[float] = field(default_factory=list)
    """Of each image, where the service reports it: seconds until the device started it."""
    causes: list[str] = field(default_factory=list)
    """Of each image, where the service reports it: why its batch had no more images."""
    images_a_job: int = 1
    in_flight: int = 0
    """The most images in flight, where the client chooses their number."""

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds if self.seconds else 0.0


Call = Callable[[Report], Awaitable[None]]
"""Makes one call and adds its images and bytes to the report."""


async def run(call: Call, workload: Workload) -> Report:
    """Run the workload's loop."""
    report = Report()
    began = perf_counter()
    if workload.rate:
        await _open(call, workload, report)
    else:
        await _closed(call, workload, report)
    report.seconds = perf_counter() - began
    return report


async def _closed(call: Call, workload: Workload, report: Report) -> None:
    ends = perf_counter() + workload.seconds
    left = workload.most or -1

    async def worker() -> None:
        nonlocal left
        while left and (now := perf_counter()) < ends:
            left -= 1
            await _timed(call, report, now)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(workload.in_flight):
            tasks.create_task(worker())


async def _open(call: Call, workload: Workload, report: Report) -> None:
    due = began = perf_counter()
    chance = random.Random(1)
    async with asyncio.TaskGroup() as tasks:
        while (due := due + chance.expovariate(workload.rate)) < began + workload.seconds:
            await asyncio.sleep(due - perf_counter())
            tasks.create_task(_timed(call, report, due))


async def _timed(call: Call, report: Report, since: float) -> None:
    try:
        await call(report)
    except Exception as error:  # noqa: BLE001 - counted, shown in the table
        report.failed += 1
        report.error = f"{type(error).__name__}: {error}"
        await asyncio.sleep(0.01)
    else:
        report.latencies.append(perf_counter() - since)


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
