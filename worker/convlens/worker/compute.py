"""A job from its claim to its end: fetch, decode, compute, store. The next is decoded while the device computes."""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from convlens.jobs.connect import LedgerUnavailable
from convlens.jobs.leases import LeaseKeeper
from convlens.jobs.ledger import Claim, Ledger
from convlens.jobs.payloads import PayloadGone, StoreFull
from convlens.jobs.plan import ActivationMapping, JobPlan, LayerOutput, Method, SaliencyMap, SpecError, make_plan
from convlens.jobs.record import JobFailure
from convlens.v1 import codec, model_pb2, spec_pb2
from convlens.worker.batcher import Batched, Batcher, Dropped
from convlens.worker.engine.plan import Activation, GradCAM, Map, Plan, Saliency
from convlens.worker.images import UnreadableAtError, read_images
from convlens.worker.reports import result_header

log = logging.getLogger(__name__)

T = TypeVar("T")

_MAPS: Final[dict[type, Callable[..., Map]]] = {
    SaliencyMap: lambda method: Saliency(method.method, method.signed, method.layer),
    ActivationMapping: lambda method: GradCAM(method.layer, method.upsampled, method.method),
    LayerOutput: lambda method: Activation(method.layer, method.channels),
}
"""One row a method: the engine's map of what a job asks for."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A model as this worker serves it."""

    card: model_pb2.Model
    batcher: Batcher


@dataclass(frozen=True, slots=True)
class Begun:
    """A job whose images are with the batcher."""

    claim: Claim
    card: model_pb2.Model
    plan: JobPlan
    maps: tuple[Map, ...]
    pieces: list[Future[Batched]]
    images: int
    decoded: float
    """Seconds it took to decode."""


class Runner:
    """Called with the job ids of each message, in a thread of the pool."""

    def __init__(
        self, ledger: Ledger, leases: LeaseKeeper, serving: Mapping[str, Serving], worker: str, max_image_pixels: int
    ) -> None:
        self._ledger = ledger
        self._leases = leases
        self._serving = serving
        self._worker = worker
        self._max_pixels = max_image_pixels

    def __call__(self, ids: Sequence[str]) -> None:
        """Computes those of `ids` that are still QUEUED. Holds no more decoded images than two or three batches."""
        begun: deque[Begun] = deque()
        try:
            for claim in self._claims(ids):
                job = self._guarded(claim, functools.partial(self._begin, claim))
                if job is not None:
                    begun.append(job)
                while begun and sum(it.images for it in begun) > 2 * begun[0].card.max_batch_size:
                    self._end(begun.popleft())
        except LedgerUnavailable as error:
            log.warning("jobs=%d could not be claimed: %s; they come again", len(ids), error)
        while begun:
            self._end(begun.popleft())

    def _claims(self, ids: Sequence[str]) -> Iterator[Claim]:
        """Claims a few at a time, so that another worker may have the rest."""
        for start in range(0, len(ids), 8):
            claims = self._ledger.claim(ids[start : start + 8], self._worker)
            for claim in claims:
                self._leases.hold(claim)
            yield from claims

    def _end(self, job: Begun) -> None:
        self._guarded(job.claim, lambda: self._finish(job))
        self._leases.drop(job.claim)

    def _guarded(self, claim: Claim, step: Callable[[], T]) -> T | None:
        """Runs one step of a job; what it raises ends the job with the reason. None when it ended so.

        Raises nothing, since others' claims are held meanwhile. A job whose end Redis cannot be told of is left to its
        lease, and comes again.
        """
        try:
            return step()
        except Dropped:
            log.info("job=%s was dropped: it had ended meanwhile", claim.record.id)
        except LedgerUnavailable as error:
            log.warning("job=%s is left to its lease: %s", claim.record.id, error)
        except Exception as error:  # noqa: BLE001 - told to the caller, and logged where unforeseen
            self._fail(claim, error)
        self._leases.drop(claim)
        return None

    def _fail(self, claim: Claim, error: Exception) -> None:
        failure = failure_of(error)
        if failure.reason == "INTERNAL":
            log.error("job=%s failed", claim.record.id, exc_info=error)
        else:
            log.info("job=%s reason=%s %s", claim.record.id, failure.reason, failure.message)
        try:
            self._ledger.fail(claim, failure)
        except LedgerUnavailable as unavailable:
            log.warning("job=%s is left to its lease: %s", claim.record.id, unavailable)

    def _begin(self, claim: Claim) -> Begun:
        """Fetches and decodes a job and hands it to its model's batcher."""
        serving = self._serving[claim.record.model]
        spec = spec_pb2.JobSpec.FromString(self._ledger.read_request(claim))
        plan = make_plan(spec, serving.card)
        self._still_wanted(claim)
        began = time.monotonic()
        height, width, _ = serving.card.input_shape
        pixels = read_images(spec.images, height, width, self._max_pixels)
        decoded = time.monotonic() - began
        targets = np.array(plan.targets, np.int32)
        maps = tuple(engine_map(tensor.method) for tensor in plan.tensors)
        work = Plan(maps, targets.shape[1], plan.scored_layer or None, plan.predictions)
        pieces = serving.batcher.submit(pixels, targets, work, lambda: not self._leases.lost(claim))
        return Begun(claim, serving.card, plan, maps, pieces, len(pixels), decoded)

    def _finish(self, job: Begun) -> None:
        """Waits for a job's pieces, puts its arrays together, and stores them."""
        pieces = [piece.result() for piece in job.pieces]
        self._still_wanted(job.claim)
        arrays = []
        for tensor, item in zip(job.plan.tensors, job.maps, strict=True):
            parts = [piece.outputs.maps[item] for piece in pieces]
            array = parts[0] if len(parts) == 1 else np.concatenate(parts)
            arrays.append(np.ascontiguousarray(array, "<f4").reshape(tensor.shape))
        specs = []
        for tensor, array in zip(job.plan.tensors, arrays, strict=True):
            specs.append(codec.describe(array, tensor.name))
            specs[-1].channels.extend(tensor.channels)
        began = time.monotonic()

        def header() -> bytes:
            stored = time.monotonic() - began
            return result_header(job.claim.record, job.card, job.plan, specs, pieces, job.decoded, stored, self._worker)

        if self._ledger.succeed(job.claim, [codec.buffer_of(array) for array in arrays], header):
            log.info(
                "job=%s model=%s images=%d batch=%d succeeded", job.claim.record.id, job.card.name, job.images,
                max(piece.batch_size for piece in pieces),
            )  # fmt: skip

    def _still_wanted(self, claim: Claim) -> None:
        if self._leases.lost(claim):
            raise Dropped("the job is not this worker's any more")


def engine_map(method: Method) -> Map:
    """What the engine calls the array that a job asks for."""
    return _MAPS[type(method)](method)


def failure_of(error: Exception) -> JobFailure:
    """Why a job ends FAILED, for its caller."""
    match error:
        case UnreadableAtError():
            return JobFailure("IMAGE_UNREADABLE", str(error), f"spec.images[{error.index}]")
        case SpecError():
            return JobFailure("INVALID_FIELD", str(error), error.field)
        case PayloadGone():
            return JobFailure("PAYLOAD_GONE", "the images are gone; submit the job again")
        case StoreFull():
            return JobFailure("RESULT_STORE_FULL", f"there was no room for the result: {error}")
        case _:
            return JobFailure("INTERNAL", f"an unforeseen {type(error).__name__}; the worker's log has it")
