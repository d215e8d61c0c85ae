"""Exports Prometheus metrics: calls and jobs as counted here, queues as Redis has them. See docs/metrics.md."""

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
from convlens.jobs.queue.producer import Producer
from convlens.jobs.runtime.redis_client import RedisUnavailable

log = logging.getLogger(__name__)

_CALLS: Final = Counter("convlens_server_calls", "Calls by method and status code.", ["method", "code"])
_SECONDS: Final = Histogram(
    "convlens_server_call_seconds",
    "Time of a call until its last answer.",
    ["method"],
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
JOBS: Final = Counter("convlens_server_jobs", "Jobs admitted, by what they met.", ["model", "outcome"])
REFUSED: Final = Counter("convlens_server_jobs_refused", "Jobs rejected, by the exceeded bound.", ["bound"])


@dataclass(slots=True)
class CallOutcome:
    """How a call ended."""

    code: str = "CANCELLED"
    """The name of its status code: by default that of a call whose caller went away."""


@contextlib.contextmanager
def observe_call(method: str) -> Iterator[CallOutcome]:
    """Count and time a call of "Service/Method"."""
    started, outcome = time.monotonic(), CallOutcome()
    try:
        yield outcome
    finally:
        _CALLS.labels(method, outcome.code).inc()
        _SECONDS.labels(method).observe(time.monotonic() - started)


class QueueCollector(Collector):
    """Reads queue lengths and usage from Redis, with their bounds. All servers export the same values."""

    def __init__(
        self, producer: Producer, bounds: Bounds, models: Callable[[], Collection[str]], draining: Callable[[], bool]
    ) -> None:
        """`models` returns the names of models that are exported even if no job waits for them."""
        self._producer = producer
        self._bounds = bounds
        self._models = models
        self._draining = draining

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that registering does not read from Redis."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics; without Redis only that it is down."""
        yield _gauge("convlens_server_draining", "1 while the server takes no more calls.", float(self._draining()))
        try:
            stats = self._producer.stats()
        except RedisUnavailable as error:
            log.warning("redis: %s", error)
            yield _gauge("convlens_redis_up", "1 while Redis answers.", 0)
            return
        yield _gauge("convlens_redis_up", "1 while Redis answers.", 1)
        yield _gauge("convlens_live_jobs", "Jobs queued and running.", stats.jobs)
        yield _gauge("convlens_live_jobs_bound", "The most that are admitted.", self._bounds.jobs)
        usage = GaugeMetricFamily("convlens_held_bytes", "Bytes held.", labels=["of"])
        for kind, size in (("images", stats.image_bytes), ("results", stats.result_bytes),
                         ("cached", stats.cached_bytes)):  # fmt: skip
            usage.add_metric([kind], size)
        yield usage
        bound = GaugeMetricFamily("convlens_held_bytes_bound", "The most that are admitted.", labels=["of"])
        bound.add_metric(["images"], self._bounds.image_bytes)
        bound.add_metric(["results"], self._bounds.result_bytes)
        yield bound
        waiting = GaugeMetricFamily("convlens_queued_jobs", "Jobs that wait for a worker.", labels=["model"])
        oldest = GaugeMetricFamily("convlens_queued_oldest_seconds", "Age of the oldest of them.", labels=["model"])
        for model in sorted({*self._models(), *stats.queues}):
            jobs, age = stats.queues.get(model, (0, 0.0))
            waiting.add_metric([model], jobs)
            oldest.add_metric([model], age)
        yield from (waiting, oldest)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value)
