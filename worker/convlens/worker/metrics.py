"""A worker's Prometheus metrics; docs/metrics.md describes each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Histogram

_BATCH_IMAGES: Final = Histogram(
    "convlens_worker_batch_images", "Images in a batch.", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
_BATCHES: Final = Counter("convlens_worker_batches", "Batches by why they had no more images.", ["model", "cause"])
_WAIT: Final = Histogram(
    "convlens_worker_wait_seconds",
    "Wait of decoded work until the device took it.",
    ["model"],
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
)
_BUSY: Final = Counter("convlens_worker_device_busy_seconds", "Time that the device computed.", ["model"])
_IDLE: Final = Counter(
    "convlens_worker_device_idle_seconds",
    "Time that the device did nothing though the worker had work.",
    ["model"],
)
JOBS: Final = Counter(
    "convlens_worker_jobs", "Jobs that the worker is through with, by how they ended.", ["model", "end"]
)
IMAGE_BYTES: Final = Counter("convlens_worker_image_bytes", "Bytes of the images fetched.", ["model"])
RESULT_BYTES: Final = Counter("convlens_worker_result_bytes", "Bytes of the arrays stored.", ["model"])


class DeviceMetrics:
    """The metrics of one model's device. Not thread-safe: for the device's thread."""

    def __init__(self, model: str, causes: Iterable[str]) -> None:
        self._images = _BATCH_IMAGES.labels(model)
        self._causes = {cause: _BATCHES.labels(model, cause) for cause in causes}
        self._wait = _WAIT.labels(model)
        self._busy = _BUSY.labels(model)
        self._idle = _IDLE.labels(model)
        self._started = self._idle_since = time.monotonic()

    def start_pass(self, images: int, cause: str, first_claimed: float, decoded: Iterable[float]) -> float:
        """Record the start of a batch's pass and return its time. All times are time.monotonic()'s.

        `first_claimed` is when the worker claimed the first of the batch's jobs, `decoded` when each of its parts was
        decoded.
        """
        self._started = now = time.monotonic()
        self._idle.inc(max(0.0, now - max(first_claimed, self._idle_since)))
        self._images.observe(images)
        self._causes[cause].inc()
        for moment in decoded:
            self._wait.observe(now - moment)
        return now

    def end_pass(self) -> float:
        """Record the end of the pass, successful or not, and return the seconds it took."""
        self._idle_since = time.monotonic()
        seconds = self._idle_since - self._started
        self._busy.inc(seconds)
        return seconds
