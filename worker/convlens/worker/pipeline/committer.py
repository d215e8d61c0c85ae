"""From the batcher to the store: waits for a job's passes, formats its arrays, stores them, and closes its record."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from convlens.jobs.payloads.store import Data
from convlens.jobs.queue.consumer import Completion, JobConsumer
from convlens.jobs.runtime.background import WorkQueue
from convlens.worker.engine.outputs import Ints, Outputs
from convlens.worker.engine.perturbation import Images, run_methods
from convlens.worker.engine.plan import Plan
from convlens.worker.models.model_protocol import preprocess_of
from convlens.worker.pipeline.in_flight import InFlightJob
from convlens.worker.pipeline.outcome import Outcomes
from convlens.worker.results.header import result_header
from convlens.worker.results.output_format import TensorEncoder

log = logging.getLogger(__name__)

MOST_TOGETHER: Final = 16
"""Jobs whose records are closed at once: the first one's result waits until the last one's is written."""
MOST_WAITING: Final = 16
"""Computed jobs that may wait; the device waits beyond them."""
DEADLINE: Final = 600.0
"""Seconds within which MOST_TOGETHER results are stored."""


class Committer:
    """Ends jobs under way in `threads` threads; `worker` is the name that their results give."""

    def __init__(self, queue: JobConsumer, outcomes: Outcomes, worker: str, *, threads: int) -> None:
        self._queue = queue
        self._outcomes = outcomes
        self._worker = worker
        self._computed = WorkQueue(
            "commit", self.commit, threads=threads, capacity=MOST_WAITING, batch=MOST_TOGETHER, deadline=DEADLINE
        )

    def start(self) -> None:
        """Start the threads."""
        self._computed.start()

    def put(self, job: InFlightJob) -> None:
        """Commit a job, all of whose pieces are computed, in a thread of this stage."""
        self._computed.put(job)

    def close(self) -> None:
        """Commit what is computed, then end the threads."""
        self._computed.close()

    def commit(self, jobs: Sequence[InFlightJob]) -> None:
        """Wait for the jobs' passes, store their results, then close their records together."""
        stored = []
        for job in jobs:
            ended = self._outcomes.guard(job.claim, functools.partial(self._store, job))
            if ended:
                stored.append((job, ended))
        try:
            counted = self._queue.finish([ended for _, ended in stored])
        except Exception as error:  # noqa: BLE001 - whatever it is, their leases would be renewed for ever
            for job, _ in stored:
                self._outcomes.leave(job.claim, error)
            return
        for (job, ended), counts in zip(stored, counted, strict=True):
            if counts:
                self._report(job, ended)
            else:
                self._outcomes.record_dropped(job.claim)

    def _report(self, job: InFlightJob, ended: Completion) -> None:
        self._outcomes.record_success(job.claim, ended.result_bytes)
        log.info(
            "job=%s model=%s images=%d passes=%d batch=%d succeeded", job.claim.record.id, job.model.card.name,
            job.images, len(job.passes), max(a_pass.batch_size for a_pass in job.passes),
        )  # fmt: skip

    def _store(self, job: InFlightJob) -> Completion:
        """Wait for a job's passes, put its arrays together, and store them."""
        results = [piece.result() for piece in job.pieces]
        job.passes += [result.statistics for result in results]
        parts = [result.outputs for result in results]
        if job.multi_pass_methods:
            parts = [self._sample(job, number, first) for number, first in enumerate(parts)]
        self._outcomes.check_wanted(job.claim)
        # maps are large, and written slice by slice
        outputs = Outputs.concatenate([replace(part, maps={}) for part in parts])
        tensors = [
            TensorEncoder([part.maps[array] for part in parts], tensor, 2 if tensor.targeted else 1)
            for tensor, array in zip(job.plan.tensors, job.arrays, strict=True)
        ]
        began = time.monotonic()

        def draw_parts() -> Iterator[Data]:
            for tensor in tensors:
                yield from tensor.slices()
            explained = [
                (tensor.spec, outputs.completeness.get(array))
                for tensor, array in zip(tensors, job.arrays, strict=True)
            ]
            timing = job.timing(time.monotonic() - began, self._worker)
            yield result_header(job.model.card, job.plan, job.images, explained, outputs, timing)

        return self._queue.store(job.claim, draw_parts(), job.plan.result_bytes)

    def _sample(self, job: InFlightJob, number: int, first: Outputs) -> Outputs:
        """Run what takes passes of its own of a piece, and report the job's progress once a second."""
        reported = time.monotonic()

        def submit(images: Images, plan: Plan, targets: Ints) -> Callable[[], Outputs]:
            (piece,) = job.model.batcher.submit(images, targets, plan, self._outcomes.owner(job.claim))

            def outputs() -> Outputs:
                result = piece.result()
                job.passes.append(result.statistics)
                return result.outputs

            return outputs

        def report(share: float) -> None:
            nonlocal reported
            if time.monotonic() - reported >= 1:
                reported = time.monotonic()
                self._queue.progress(job.claim, (number + share) / len(job.pixels))

        card = job.model.card
        pixels = job.pixels[number]
        return run_methods(
            first,
            pixels,
            job.first_plan,
            job.multi_pass_methods,
            preprocess_of(card),
            submit,
            card.max_batch_size,
            report,
        )
