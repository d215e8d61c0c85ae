"""Bare Celery's client: tasks of one image or of eight, the oldest result awaited first."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from time import perf_counter
from typing import Any, Final

from bench.plane import work
from bench.plane.driver import serve
from bench.plane.load import Report, Workload
from bench.plane.peers.celery.tasks import connect, zeros

PACK: Final = 8
TIMEOUT: Final = 20.0


def run_loop(workload: Workload, bodies: Iterator[bytes]) -> Report:
    """Run a closed loop in one thread, as Celery's results are awaited."""
    pack = PACK if workload.call == "map" else 1
    report = Report(images_a_job=pack)
    waiting: deque[tuple[float, Any]] = deque()
    began = perf_counter()
    while (is_running := perf_counter() < began + workload.seconds) or waiting:
        if is_running and len(waiting) < workload.in_flight // pack:
            sent = list(islice(bodies, pack))
            waiting.append((perf_counter(), zeros.delay(sent)))
            report.sent += sum(map(len, sent))
            continue
        since, task = waiting.popleft()
        for answer in task.get(timeout=TIMEOUT):
            work.received(workload.kind, answer)
            report.images += 1
            report.received += len(answer)
        task.forget()
        report.latencies.append(perf_counter() - since)
    report.seconds = perf_counter() - began
    return report


async def main() -> None:
    """Run workloads."""
    bodies = {kind: work.bodies(kind) for kind in ("raw", "jpeg", "photo")}

    async def run(workload: Workload) -> Report:
        return run_loop(workload, bodies[workload.kind])

    await serve(run)


if __name__ == "__main__":
    connect(sys.argv[1])
    asyncio.run(main())
