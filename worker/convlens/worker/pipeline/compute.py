"""A job from its claim to its end: fetch, decode, compute, store. The next is decoded while the device computes.

Large jobs, of many passes, pixels or bytes, hold nobody up: each hand ends one at a time in a thread apart, images are
decoded in processes of their own, and what those of many passes or bytes hold of arrays together is bounded.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import numpy as np

from convlens.jobs.payloads.store import Data, PayloadGone, StoreFull
from convlens.jobs.queue.hands import Hand, Hands, Then
from convlens.jobs.queue.lease_renewer import LeaseKeeper
from convlens.jobs.queue.ledger import Claim, Ended, Ledger
from convlens.jobs.queue.record import JobFailure
from convlens.jobs.request.fields import SpecError
from convlens.jobs.request.plan import JobPlan
from convlens.jobs.request.plan_cache import PlanCache
from convlens.jobs.runtime.redis_client import LedgerUnavailable
from convlens.v1 import model_pb2, spec_pb2
from convlens.v1.image_formats import LARGE_PIXELS, SLOW_PIXELS
from convlens.worker import metrics
from convlens.worker.engine.outputs import Ints, Outputs
from convlens.worker.engine.plan import Plan
from convlens.worker.engine.sampling import Asked, Images, Sampled, complete, split
from convlens.worker.images import Pixels, Reader, UnreadableAtError
from convlens.worker.method_registry import engine_value
from convlens.worker.models.model_protocol import preprocess_of
from convlens.worker.pipeline.batcher import Batched, Batcher, Dropped, Owner, Pass
from convlens.worker.pipeline.claiming import Claimer
from convlens.worker.pipeline.decoder_processes import Decoders
from convlens.worker.pipeline.in_flight_limit import Room
from convlens.worker.pipeline.memory_budget import Budget
from convlens.worker.results.header import result_header
from convlens.worker.results.output_format import FormedTensor

log = logging.getLogger(__name__)

TOGETHER: Final = 16
"""Jobs whose records are closed at once: the first one's result waits until the last one's is written."""

_PLANS: Final = PlanCache()
LANES: Final = ("many", "huge")
"""Kinds of large jobs: those that take minutes on the device do not keep those waiting that take seconds to decode."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Serving:
    """A model as this worker serves it."""

    pool: str
    """Whose jobs it takes."""
    card: model_pb2.Model
    batcher: Batcher
    room: Room


@dataclass(slots=True, eq=False)
class Begun:
    """A job whose images are with the batcher, in pieces of a batch."""

    claim: Claim
    card: model_pb2.Model
    plan: JobPlan
    asked: tuple[Asked, ...]
    """By tensor of the plan."""
    sampled: tuple[Sampled, ...]
    """Those of them that take passes of their own."""
    first: Plan
    """The pass that all the images take first."""
    pieces: list[Future[Batched]]
    pixels: list[Images]
    """Of each piece, where there is anything `sampled`."""
    decoded: float = 0.0
    """Seconds it took to decode."""
    passes: list[Pass] = field(default_factory=list)
    """All that it took, once its result is there."""

    @property
    def images(self) -> int:
        """How many it has."""
        return len(self.claim.images)

    @property
    def computed(self) -> bool:
        """True when its first pass is done."""
        return all(piece.done() for piece in self.pieces)


class Runner:
    """Called with a pool of workers for each message, in one of Celery's threads."""

    def __init__(
        self,
        ledger: Ledger,
        leases: LeaseKeeper,
        hands: Hands,
        serving: Iterable[Serving],
        worker: str,
        reader: Reader,
        decoders: Decoders,
        working: Budget,
    ) -> None:
        self._ledger = ledger
        self._leases = leases
        self._hands = hands
        self._serving = {it.pool: it for it in serving}
        self._worker = worker
        self._reader = reader
        self._decoders = decoders
        self._working = working
        self._claimer = Claimer(ledger, leases, worker)

    def __call__(self, pool: str) -> None:
        """Computes jobs of `pool`, whose turn it is, until there are none; claims them as the device has room."""
        serving = self._serving[pool]
        with self._hands.woken(pool, serving.room.urge) as hand:
            if hand:
                self._work(hand, serving)

    def _work(self, hand: Hand, serving: Serving) -> None:
        with ThreadPoolExecutor(len(LANES), thread_name_prefix="large") as apart:
            self._rounds(hand, serving, apart)

    def _rounds(self, hand: Hand, serving: Serving, apart: Executor) -> None:
        """Large jobs are computed `apart`, one of each kind at a time; the hand goes on with the others meanwhile."""
        begun: list[Begun] = []
        large: dict[str, Future[None]] = {}
        then = Then.WAIT

        def free(kind: str) -> bool:
            return kind not in large or large[kind].done()

        try:
            while not hand.stopping:
                claims, more = self._claim(serving, hand, Then.WORK if begun else then, begun, free)
                for claim in claims:
                    if claim.record.is_large:
                        large[claim.record.kind] = apart.submit(self._large, serving, claim)
                        large[claim.record.kind].add_done_callback(lambda _: hand.tell())
                begun += self._begun(serving, [claim for claim in claims if not claim.record.is_large])
                if not claims and not begun:
                    if then is Then.REST:
                        return
                    then = Then.WAIT if self._told(serving, hand) or not all(map(free, LANES)) else Then.REST
                while begun and (
                    not more or any(it.computed for it in begun) or sum(it.images for it in begun) > serving.room.images
                ):
                    self._end(_computed(begun))
                    then = Then.WAIT
            self._claimer.tell(serving.pool, hand, Then.REST)  # nobody is to count on it
        except LedgerUnavailable as error:
            log.warning("model=%s no jobs could be claimed: %s; they come again", serving.card.name, error)
        finally:
            while begun:
                self._end(_computed(begun))

    def _told(self, serving: Serving, hand: Hand) -> bool:
        """Waits to be told of work; another hand is told of it, too, where this worker has no room for it now."""
        told = hand.told()
        if told and serving.room.full:
            self._claimer.tell(serving.pool, hand, Then.WORK)
        return told

    def _claim(
        self, serving: Serving, hand: Hand, then: Then, begun: list[Begun], free: Callable[[str], bool]
    ) -> tuple[list[Claim], bool]:
        """As many as there is room for, and whether there may be more.

        Waits until there is some room, or one of those begun is to be ended. `free` says of a kind of large ones
        whether one may be among them, which takes no room: others go on while it is decoded.
        """
        with serving.room.taken(lambda: any(it.computed for it in begun)) as room:
            if not room.free:
                return [], True
            claims = self._claimer.claim(serving.pool, room.free, hand, then, *(int(free(kind)) for kind in LANES))
            room.used = sum(len(claim.images) for claim in claims if not claim.record.is_large)
        return claims, sum(len(claim.images) for claim in claims) >= room.free

    def _large(self, serving: Serving, claim: Claim) -> None:
        """Computes a large job, from its images to its end; one of many bytes when there is memory for them.

        A job that is large to decode alone is made of fewer than LARGE_BYTES, and waits for no other's.
        """
        plan = self._guarded(claim, lambda: _PLANS.resolve(claim.spec, serving.card))
        if plan is None:
            return
        try:
            with self._working.taken(plan.working_bytes) if claim.record.kind == "many" else nullcontext():
                self._end(self._begun(serving, [claim]))
        except LedgerUnavailable as error:
            self._left(claim, error)

    def _begun(self, serving: Serving, claims: Sequence[Claim]) -> list[Begun]:
        """Fetches the images of all, then decodes them job by job, for the device to begin with the first meanwhile."""
        try:
            fetched = self._fetched(claims)
        except BaseException:  # whatever it is, these are left to their leases
            for claim in claims:
                _release(serving, claim, len(claim.images))
                self._leases.drop(claim)
            raise
        found = []
        for claim, data in zip(claims, fetched, strict=True):
            job = self._guarded(claim, functools.partial(self._begin, serving, claim, data))
            if job:
                found.append(job)
        return found

    def _fetched(self, claims: Sequence[Claim]) -> list[list[Data] | Exception]:
        """The images of each; in the place of those that cannot be read, for another reason than Redis, the error."""
        try:
            return [*self._ledger.read_images(claims)]
        except LedgerUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - ends the job it belongs to
            if len(claims) == 1:
                return [error]
            return [self._fetched([claim])[0] for claim in claims]

    def _end(self, jobs: Sequence[Begun]) -> None:
        """Stores the jobs' results, then closes their records together."""
        stored = []
        for job in jobs:
            ended = self._guarded(job.claim, functools.partial(self._store, job))
            if ended:
                stored.append((job, ended))
        try:
            counted = self._ledger.finish([ended for _, ended in stored])
        except Exception as error:  # noqa: BLE001 - whatever it is, their leases would be renewed for ever
            for job, _ in stored:
                self._left(job.claim, error)
                self._leases.drop(job.claim)
            return
        for (job, ended), counts in zip(stored, counted, strict=True):
            if counts:
                self._succeeded(job, ended)
            else:
                self._dropped(job.claim)
            self._leases.drop(job.claim)

    def _guarded(self, claim: Claim, step: Callable[[], T]) -> T | None:
        """Runs one step of a job; what it raises ends the job with the reason. None when it ended so.

        Raises nothing, since others' claims are held meanwhile. A job whose end Redis cannot be told of is left to its
        lease, and comes again.
        """
        try:
            return step()
        except Dropped:
            self._dropped(claim)
        except LedgerUnavailable as error:
            self._left(claim, error)
        except Exception as error:  # noqa: BLE001 - told to the caller, and logged where unforeseen
            self._fail(claim, error)
        self._leases.drop(claim)
        return None

    def _dropped(self, claim: Claim) -> None:
        metrics.JOBS.labels(claim.record.model, "DROPPED").inc()
        log.info("job=%s was dropped: it had ended meanwhile", claim.record.id)

    def _left(self, claim: Claim, error: Exception) -> None:
        metrics.JOBS.labels(claim.record.model, "LEFT").inc()
        log.warning("job=%s is left to its lease: %s", claim.record.id, error)

    def _succeeded(self, job: Begun, ended: Ended) -> None:
        metrics.JOBS.labels(job.card.name, "SUCCEEDED").inc()
        metrics.RESULT_BYTES.labels(job.card.name).inc(ended.result_bytes)
        log.info(
            "job=%s model=%s images=%d passes=%d batch=%d succeeded", job.claim.record.id, job.card.name,
            job.images, len(job.passes), max(it.batch_size for it in job.passes),
        )  # fmt: skip

    def _fail(self, claim: Claim, error: Exception) -> None:
        failure = failure_of(error)
        metrics.JOBS.labels(claim.record.model, failure.reason).inc()
        if failure.reason == "INTERNAL":
            log.error("job=%s failed", claim.record.id, exc_info=error)
        else:
            log.info("job=%s reason=%s %s", claim.record.id, failure.reason, failure.message)
        try:
            self._ledger.finish([Ended(claim, failure)])
        except LedgerUnavailable as unavailable:
            log.warning("job=%s is left to its lease: %s", claim.record.id, unavailable)

    def _begin(self, serving: Serving, claim: Claim, data: Sequence[Data] | Exception) -> Begun:
        """Decodes a job and hands it to its model's batcher, batch by batch; room it does not use is free again."""
        left = len(claim.images)
        release = functools.partial(_release, serving, claim)
        decode = functools.partial(self._decode, claim)
        most_here = 0 if claim.record.pixels >= LARGE_PIXELS else SLOW_PIXELS
        try:
            if isinstance(data, Exception):
                raise data
            if not data:
                raise PayloadGone(f"the images of job {claim.record.id} are gone")
            metrics.IMAGE_BYTES.labels(claim.record.model).inc(sum(image.size for image in claim.images))
            spec = spec_pb2.JobSpec.FromString(claim.spec)
            plan = _PLANS.resolve(claim.spec, serving.card)
            targets = np.array(plan.targets, np.int32)
            asked = tuple(engine_value(tensor.method) for tensor in plan.tensors)
            maps, sampled = split(asked)
            first = Plan(maps, targets.shape[1], plan.scored_layer or None, plan.predictions)
            job = Begun(claim, serving.card, plan, asked, sampled, first, [], [])
            height, width, channels = serving.card.input_shape
            size = serving.card.max_batch_size
            while left:
                self._still_wanted(claim)
                start = len(data) - left
                rows = slice(start, start + size)
                began = time.monotonic()
                pixels = self._reader.read(
                    spec.images[rows], data[rows], height, width, start, channels, decode, most_here=most_here
                )
                job.decoded += time.monotonic() - began
                if sampled:
                    job.pixels.append(pixels)
                left -= len(pixels)
                job.pieces += serving.batcher.submit(pixels, targets[rows], first, self._owner(claim), release)
        finally:
            release(left)
        return job

    def _decode(self, claim: Claim, image: spec_pb2.Image, data: Data, into: Pixels) -> None:
        """Reads an image that takes long, unless the job has ended meanwhile."""
        self._still_wanted(claim)
        self._decoders.read(image, data, into)

    def _store(self, job: Begun) -> Ended:
        """Waits for a job's passes, puts its arrays together, and stores them."""
        batched = [piece.result() for piece in job.pieces]
        job.passes += [it.took for it in batched]
        parts = [it.outputs for it in batched]
        if job.sampled:
            parts = [self._sample(job, number, first) for number, first in enumerate(parts)]
        self._still_wanted(job.claim)
        outputs = Outputs.joined([replace(it, maps={}) for it in parts])  # maps are large, and written slice by slice
        tensors = [
            FormedTensor([it.maps[item] for it in parts], tensor, 2 if tensor.targeted else 1)
            for tensor, item in zip(job.plan.tensors, job.asked, strict=True)
        ]
        began = time.monotonic()

        def written() -> Iterator[Data]:
            for tensor in tensors:
                yield from tensor.slices()
            explained = [
                (it.spec, outputs.completeness.get(asked)) for it, asked in zip(tensors, job.asked, strict=True)
            ]
            stored = time.monotonic() - began
            yield result_header(
                job.claim.record, job.card, job.plan, explained, outputs, job.passes, job.decoded, stored, self._worker
            )

        return self._ledger.store(job.claim, written(), job.plan.result_bytes)

    def _sample(self, job: Begun, number: int, first: Outputs) -> Outputs:
        """Runs what takes passes of its own of a piece, and tells the job's progress once a second."""
        batcher = self._serving[job.claim.record.pool].batcher
        told = time.monotonic()

        def submit(images: Images, plan: Plan, targets: Ints) -> Callable[[], Outputs]:
            (piece,) = batcher.submit(images, targets, plan, self._owner(job.claim))

            def outputs() -> Outputs:
                found = piece.result()
                job.passes.append(found.took)
                return found.outputs

            return outputs

        def progress(share: float) -> None:
            nonlocal told
            if time.monotonic() - told >= 1:
                told = time.monotonic()
                self._ledger.progress(job.claim, (number + share) / len(job.pixels))

        scheme = preprocess_of(job.card)
        pixels = job.pixels[number]
        return complete(first, pixels, job.first, job.sampled, scheme, submit, job.card.max_batch_size, progress)

    def _owner(self, claim: Claim) -> Owner:
        record = claim.record
        return Owner(record.flow, lambda: not self._leases.lost(claim), claim.taken, record.id, record.attempts > 1)

    def _still_wanted(self, claim: Claim) -> None:
        if self._leases.lost(claim):
            raise Dropped("the job is not this worker's any more")


def _release(serving: Serving, claim: Claim, images: int) -> None:
    """Gives back the room of images of a job; a large one takes none."""
    if not claim.record.is_large:
        serving.room.release(images)


def _computed(begun: list[Begun]) -> list[Begun]:
    """Takes out those whose last piece, mostly the last to be, is computed, TOGETHER at most; waits for the first."""
    wait([it.pieces[-1] for it in begun], return_when=FIRST_COMPLETED)
    found = [it for it in begun if it.pieces[-1].done()][:TOGETHER]
    begun[:] = [it for it in begun if it not in found]
    return found


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
