"""A model as this worker serves it, and a job of it under way."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from google.protobuf import duration_pb2

from convlens.jobs.queue.consumer import Claim
from convlens.v1 import model_pb2, result_pb2
from convlens.v1.request.plan import JobPlan
from convlens.worker.engine.perturbation import Images, PerturbationMethod, RequestedArray
from convlens.worker.engine.plan import Plan
from convlens.worker.pipeline.batcher import Batcher, BatchResult, Pass
from convlens.worker.pipeline.limits import InFlightLimit


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model as this worker serves it."""

    pool: str
    """Whose jobs it takes."""
    card: model_pb2.Model
    batcher: Batcher
    limit: InFlightLimit

    def release(self, claim: Claim, images: int) -> None:
        """Free the in-flight images of a job; a large one has none."""
        if not claim.record.is_large:
            self.limit.release(images)


@dataclass(slots=True, eq=False)
class InFlightJob:
    """A job whose images are with the batcher, in pieces of a batch."""

    claim: Claim
    model: LoadedModel
    plan: JobPlan
    arrays: tuple[RequestedArray, ...]
    """What the engine computes, by tensor of the plan."""
    multi_pass_methods: tuple[PerturbationMethod, ...]
    """Those of them that take passes of their own."""
    first_plan: Plan
    """The pass that all the images take first."""
    pieces: list[Future[BatchResult]] = field(default_factory=list)
    pixels: list[Images] = field(default_factory=list)
    """Of each piece, where there are `multi_pass_methods`."""
    decode_seconds: float = 0.0
    passes: list[Pass] = field(default_factory=list)
    """All that it took, once its result is there."""

    @property
    def images(self) -> int:
        """How many it has."""
        return len(self.claim.images)

    def timing(self, stored: float, worker: str) -> result_pb2.Timing:
        """Return where the time went; `stored` are the seconds that storing the arrays took."""
        record, passes = self.claim.record, self.passes
        largest = max(passes, key=lambda pass_: pass_.batch_size)
        return result_pb2.Timing(
            queued=_duration((record.started or record.created) - record.created),
            decode=_duration(self.decode_seconds),
            wait=_duration(sum(pass_.waited for pass_ in passes) / len(passes)),
            compute=_duration(sum(pass_.computed for pass_ in passes)),
            store=_duration(stored),
            batch_size=largest.batch_size,
            batch_cause=result_pb2.BatchCause.Value(f"BATCH_CAUSE_{largest.cause.name}"),
            worker=worker,
        )

    def call_when_computed(self, function: Callable[[InFlightJob], object]) -> None:
        """Call `function` with this job once all its pieces are computed, in the thread that computes the last."""
        left = itertools.count(len(self.pieces) - 1, -1)

        def on_done(_: Future[BatchResult]) -> None:
            if next(left) == 0:
                function(self)

        for piece in self.pieces:
            piece.add_done_callback(on_done)


def _duration(seconds: float) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromNanoseconds(max(0, int(seconds * 1e9)))
    return message
