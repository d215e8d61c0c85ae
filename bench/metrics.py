"""What the metrics cost a job of one image in a batch of its own: `python -m bench.metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from convlens.server import metrics as server
from convlens.worker import metrics as worker
from convlens.worker.pipeline.batcher import Cause

JOBS: Final = 100_000
DEVICE: Final = worker.Device("null", Cause)


def of_a_worker() -> None:
    """As batcher.py and compute.py do."""
    worker.IMAGE_BYTES.labels("null").inc(1)
    now = time.monotonic()
    DEVICE.begins(1, Cause.FULL, now, (now,))
    DEVICE.ends()
    worker.JOBS.labels("null", "SUCCEEDED").inc()
    worker.RESULT_BYTES.labels("null").inc(1)


def of_a_front() -> None:
    """As interceptors/status.py and job_gateway.py do."""
    with server.observe_call("VisualizationService/Visualize") as outcome:
        server.JOBS.labels("null", "queued").inc()
        outcome.code = "OK"


def microseconds(job: Callable[[], None]) -> float:
    """Of one, the least of five rounds."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(JOBS):
            job()
        took.append((time.perf_counter() - began) / JOBS * 1e6)
    return min(took)


if __name__ == "__main__":
    print(f"a worker: {microseconds(of_a_worker):.1f} µs a job; a front: {microseconds(of_a_front):.1f} µs a job")
