"""What a front tells Prometheus; docs/metrics.md has each metric's meaning. What waits it asks Redis at each scrape."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from convlens.jobs.queue.admission import Bounds
from convlens.jobs.queue.ledger import Ledger
from convlens.jobs.runtime.redis_client import LedgerUnavailable

log = logging.getLogger(__name__)

_CALLS: Final = Counter("convlens_server_calls", "Calls by method and status code.", ["method", "code"])
_SECONDS: Final = Histogram(
    "convlens_server_call_seconds",
    "Time of a call until its last answer.",
    ["method"],
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
JOBS: Final = Counter("convlens_server_jobs", "Jobs admitted, by what they met.", ["model", "outcome"])
REFUSED: Final = Counter("convlens_server_jobs_refused", "Jobs refused for want of room, by the bound.", ["bound"])


@dataclass(slots=True)
class Call:
    """One that is under way."""

    code: str = "CANCELLED"
    """The status code's name; what it stays at, unless told otherwise, is that the caller went away."""


@contextlib.contextmanager
def call(method: str) -> Iterator[Call]:
    """Counts and times a call of "Service/Method"."""
    began, seen = time.monotonic(), Call()
    try:
        yield seen
    finally:
        _CALLS.labels(method, seen.code).inc()
        _SECONDS.labels(method).observe(time.monotonic() - began)


class Standing(Collector):
    """What the ledger holds, against its bounds. All fronts tell the same of it."""

    def __init__(
        self, ledger: Ledger, bounds: Bounds, models: Callable[[], Collection[str]], draining: Callable[[], bool]
    ) -> None:
        """`models` are those to be told of though nothing waits for them."""
        self._ledger = ledger
        self._bounds = bounds
        self._models = models
        self._draining = draining

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: so that registering asks nobody."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Asks Redis; without it, tells that alone."""
        yield _gauge("convlens_server_draining", "1 while the front takes no more calls.", float(self._draining()))
        try:
            standing = self._ledger.standing()
        except LedgerUnavailable as error:
            log.warning("redis: %s", error)
            yield _gauge("convlens_redis_up", "1 while Redis answers.", 0)
            return
        yield _gauge("convlens_redis_up", "1 while Redis answers.", 1)
        yield _gauge("convlens_live_jobs", "Jobs queued and running.", standing.jobs)
        yield _gauge("convlens_live_jobs_bound", "The most that are admitted.", self._bounds.jobs)
        held = GaugeMetricFamily("convlens_held_bytes", "Bytes held.", labels=["of"])
        for of, size in (("images", standing.image_bytes), ("results", standing.result_bytes),
                         ("cached", standing.cached_bytes)):  # fmt: skip
            held.add_metric([of], size)
        yield held
        bound = GaugeMetricFamily("convlens_held_bytes_bound", "The most that are admitted.", labels=["of"])
        bound.add_metric(["images"], self._bounds.image_bytes)
        bound.add_metric(["results"], self._bounds.result_bytes)
        yield bound
        waiting = GaugeMetricFamily("convlens_queued_jobs", "Jobs that wait for a worker.", labels=["model"])
        oldest = GaugeMetricFamily("convlens_queued_oldest_seconds", "Age of the oldest of them.", labels=["model"])
        for model in sorted({*self._models(), *standing.queues}):
            jobs, age = standing.queues.get(model, (0, 0.0))
            waiting.add_metric([model], jobs)
            oldest.add_metric([model], age)
        yield from (waiting, oldest)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value)
