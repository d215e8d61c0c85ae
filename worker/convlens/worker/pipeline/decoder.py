"""From claims to the batcher: fetches the images of jobs, decodes them, and submits them piece by piece."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence

import numpy as np

from convlens.jobs.payloads.store import Data, PayloadGone
from convlens.jobs.queue.consumer import Claim, JobConsumer
from convlens.jobs.runtime.redis_client import RedisUnavailable
from convlens.v1 import spec_pb2
from convlens.v1.image_formats import LARGE_PIXELS, SLOW_PIXELS
from convlens.v1.request.plan import resolve_serialized
from convlens.worker import metrics
from convlens.worker.engine.perturbation import plan_passes
from convlens.worker.engine.plan import Plan
from convlens.worker.images import ImageDecoder, Pixels
from convlens.worker.method_registry import METHODS
from convlens.worker.pipeline.decoder_processes import DecoderProcesses
from convlens.worker.pipeline.in_flight import InFlightJob, LoadedModel
from convlens.worker.pipeline.outcome import Outcomes


class Decoder:
    """Images that take long to decode are decoded by `processes`, all others in the calling thread."""

    def __init__(
        self,
        queue: JobConsumer,
        outcomes: Outcomes,
        reader: ImageDecoder,
        processes: DecoderProcesses,
    ) -> None:
        self._queue = queue
        self._outcomes = outcomes
        self._reader = reader
        self._processes = processes

    def submit(self, model: LoadedModel, claims: Sequence[Claim]) -> Iterator[InFlightJob]:
        """Fetch the images of all, then decode and yield job by job: the device starts with the first meanwhile."""
        try:
            fetched = self._fetch(claims)
        except RedisUnavailable as error:
            for claim in claims:
                model.release(claim, len(claim.images))
                self._outcomes.leave(claim, error)
            raise
        for claim, data in zip(claims, fetched, strict=True):
            if job := self._outcomes.guard(claim, functools.partial(self._submit, model, claim, data)):
                yield job

    def _fetch(self, claims: Sequence[Claim]) -> list[list[Data] | Exception]:
        """The images of each; in the place of those that cannot be read, for another reason than Redis, the error."""
        try:
            return [*self._queue.read_images(claims)]
        except RedisUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - ends the job it belongs to
            if len(claims) == 1:
                return [error]
            return [self._fetch([claim])[0] for claim in claims]

    def _submit(self, model: LoadedModel, claim: Claim, data: Sequence[Data] | Exception) -> InFlightJob:
        """Decode a job and give it to its model's batcher, batch by batch; what it does not use is released."""
        left = len(claim.images)
        release = functools.partial(model.release, claim)
        decode = functools.partial(self._decode, claim)
        max_pixels_here = 0 if claim.record.pixels >= LARGE_PIXELS else SLOW_PIXELS
        try:
            if isinstance(data, Exception):
                raise data
            if not data:
                raise PayloadGone(f"the images of job {claim.record.id} are gone")
            metrics.IMAGE_BYTES.labels(claim.record.model).inc(sum(image.size for image in claim.images))
            spec = spec_pb2.JobSpec.FromString(claim.spec)
            plan = resolve_serialized(claim.spec, model.card)
            targets = np.array(plan.targets, np.int32)
            arrays = tuple(METHODS[tensor.method.method](tensor.method) for tensor in plan.tensors)
            maps, sampled = plan_passes(arrays)
            first = Plan(maps, targets.shape[1], plan.scored_layer or None, plan.predictions)
            job = InFlightJob(claim, model, plan, arrays, sampled, first)
            height, width, channels = model.card.input_shape
            size = model.card.max_batch_size
            while left:
                self._outcomes.check_wanted(claim)
                start = len(data) - left
                rows = slice(start, start + size)
                began = time.monotonic()
                pixels = self._reader.read(
                    spec.images[rows],
                    data[rows],
                    height,
                    width,
                    start,
                    channels,
                    decode,
                    max_pixels_here=max_pixels_here,
                )
                job.decode_seconds += time.monotonic() - began
                if sampled:
                    job.pixels.append(pixels)
                left -= len(pixels)
                owner = self._outcomes.owner(claim)
                job.pieces += model.batcher.submit(pixels, targets[rows], first, owner, release)
        finally:
            release(left)
        return job

    def _decode(self, claim: Claim, image: spec_pb2.Image, data: Data, into: Pixels) -> None:
        """Decode an image that takes long, unless the job has ended meanwhile."""
        self._outcomes.check_wanted(claim)
        self._processes.read(image, data, into)
