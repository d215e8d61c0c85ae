# Generated from _async/mapping.py by scripts/generate_sync.py; do not edit.
"""The engine of map(): images in batches, several jobs in flight, results in order."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal

from convlens.client._sync.calls import Calls
from convlens.client.batching import Batch, Batcher, ItemError, bisect_on_error
from convlens.client.errors import ClientClosed, ConvlensError, check_process
from convlens.client.images import ImageLike, MapImages
from convlens.client.request import new_request
from convlens.client.result import Result
from convlens.client.sync_transport import CallGroup, iterate, run_blocking
from convlens.client.targets import ItemTarget, checked_target, uneven
from convlens.v1 import spec_pb2

SLOW_SECONDS: Final = 0.1
"""How long jobs are begun before a result that is there is yielded: images come slowly then. Quick ones go first."""
_END: Final = object()


@dataclass(frozen=True, slots=True)
class Mapping:
    """One map(): what its jobs have in common."""

    calls: Calls
    spec: spec_pb2.JobSpec
    target: Any
    """The target of all images, unless each has its own."""
    timeout: float
    """Seconds for each job."""
    batcher: Batcher

    def run(
        self,
        images: MapImages,
        targets: Any,
        in_flight: int,
        errors: Literal["raise", "return"],
        counter: AbstractContextManager[Callable[[], None]],
    ) -> Iterator[Any]:
        """Yield the outcome of each image in order, counted before, with at most `in_flight` jobs under way."""
        batches = self._batches(images, targets)
        running: deque[Any] = deque()
        process = os.getpid()
        with counter as count_one:
            session = self.calls.transport.session()
            with session.calls.subgroup() as calls:
                while True:
                    filling_since = time.monotonic()
                    while len(running) < in_flight and (batch := next(batches, None)):
                        running.append(calls.start(self._run_batch, batch, calls))
                        if running[0].done() and time.monotonic() - filling_since > SLOW_SECONDS:
                            break
                    if not running:
                        return
                    for outcome in calls.outcome(running.popleft()):
                        if errors == "raise" and isinstance(outcome, Exception):
                            raise outcome
                        count_one()
                        yield outcome
                        check_process(process, "map")

    def _batches(self, images: MapImages, targets: Any) -> Iterator[Batch]:
        for image, target in paired(images, targets):
            if batch := run_blocking(self.batcher.add, image, target):
                yield batch
        if batch := self.batcher.flush():
            yield batch

    def _run_batch(self, batch: Batch, calls: CallGroup) -> list[Result | ItemError]:
        """Return the outcome of each image of a batch."""
        if not batch.images:
            return batch.in_order([])
        start = time.monotonic()
        outcomes = self._run_images(batch, calls)
        self.batcher.adapt(len(batch), time.monotonic() - start)
        return batch.in_order(outcomes)

    def _run_images(self, batch: Batch, calls: CallGroup) -> list[Result | ItemError]:
        """Return the outcome of each image that can be sent; a job that fails is split until the culprit is alone."""
        try:
            limit = self.calls.job_time_limit(self.timeout)
            request = new_request(self.spec, batch.images, batch.targets or self.target, time_limit=limit)
            return [*(self.calls.visualize(request, self.timeout, calls)).split(copy=True)]
        except ClientClosed:
            raise
        except ConvlensError as error:
            parts = bisect_on_error(batch, error)
            if not parts:
                return [error] * len(batch.images)
        return [outcome for part in parts for outcome in self._run_images(part, calls)]


def paired(images: MapImages, targets: Any) -> Iterator[tuple[ImageLike, ItemTarget]]:
    """Yield each image with its own target, or what is wrong with that. InvalidArgument if either ends first."""
    if targets is None:
        for image in iterate(images):
            yield image, None
        return
    remaining, count = iterate(targets), 0
    for image in iterate(images):
        target = next(remaining, _END)
        if target is _END:
            raise uneven(count, "more")
        yield image, checked_target(target)
        count += 1
    if next(remaining, _END) is not _END:
        raise uneven("more", count)
