"""Measure what metrics cost per job of one image in a batch of its own: `python -m bench.metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from convlens.server import metrics as server
from convlens.worker import metrics as worker
from convlens.worker.pipeline.batcher import Cause

JOBS: Final = 100_000
DEVICE: Final = worker.DeviceMetrics("null", Cause)


def count_in_worker() -> None:
    """Count as the worker does."""
    worker.IMAGE_BYTES.labels("null").inc(1)
    now = time.monotonic()
    DEVICE.start_pass(1, Cause.FULL, now, (now,))
    DEVICE.end_pass()
    worker.JOBS.labels("null", "SUCCEEDED").inc()
    worker.RESULT_BYTES.labels("null").inc(1)


def count_in_server() -> None:
    """Count as the server does."""
    with server.call("VisualizationService/Visualize") as call:
        server.JOBS.labels("null", "queued").inc()
        call.code = "OK"


def microseconds(job: Callable[[], None]) -> float:
    """Return the time of one job, the least of five rounds."""
    took = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(JOBS):
            job()
        took.append((time.perf_counter() - start) / JOBS * 1e6)
    return min(took)


if __name__ == "__main__":
    print(f"worker: {microseconds(count_in_worker):.1f} µs; server: {microseconds(count_in_server):.1f} µs per job")
