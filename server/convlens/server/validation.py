"""Validates requests before anything is queued: each error names its field, what is wrong, and what is allowed."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import simplejpeg
from blake3 import blake3
from PIL.Image import DecompressionBombError

from convlens.jobs.model_registry import LiveModels
from convlens.jobs.payloads.store import Data
from convlens.jobs.queue.new_job import NewJob
from convlens.jobs.queue.record import Priority
from convlens.server.requests import JobRequest
from convlens.server.settings import ServerSettings
from convlens.server.status import RETRY_SECONDS
from convlens.v1 import model_pb2, spec_pb2
from convlens.v1.image_formats import (
    LARGE_PIXELS,
    PictureError,
    decoding_factor,
    needs_own_process,
    open_picture,
)
from convlens.v1.pictures import check_mode
from convlens.v1.reasons import Reason
from convlens.v1.request.fields import (
    check_counts,
    check_pixels,
    check_timeout,
    check_value_range,
    enum_name,
)
from convlens.v1.request.plan import JobPlan, resolve_serialized
from convlens.v1.status_error import SpecError, StatusError

RECORD_BYTES: Final = 2500
"""Size in Redis of a live job's record and its index entries, without its spec and images."""
IMAGE_RECORD_BYTES: Final = 330
"""Size of the index entries of each of its images."""
_START: Final = "; start one with `convlens worker`"


@dataclass(frozen=True)
class Submission:
    """What a call says of the job beside its spec."""

    request_id: str
    """A canonical UUID, or empty."""
    tenant: str
    keep: bool = False
    """True for a job that runs whether anybody waits for it or not."""
    time_remaining: float | None = None
    """Seconds until the call's deadline, which is the job's, too; None without one."""
    is_unary: bool = False
    """True where the result must fit into one message."""

    @functools.cached_property
    def job_id(self) -> str:
        """The job's id: derived from the request's, so that a repeated call finds its job; drawn without one."""
        if not self.request_id:
            return uuid.uuid4().hex
        return blake3(f"{self.tenant}/{uuid.UUID(self.request_id).hex}".encode()).hexdigest(16)


def validate(
    request: JobRequest,
    submission: Submission,
    live: LiveModels,
    settings: ServerSettings,
    known_names: Collection[str] = (),
) -> NewJob:
    """Return the job that `request` describes. Raises StatusError or SpecError. Modifies the request's spec."""
    spec: spec_pb2.JobSpec = request.message.spec
    card = find_model(spec.model, live, "spec.model", known_names)
    spec.model = card.name
    check_counts(spec, settings.max_images, settings.max_visualizations)
    tenant_key = blake3(submission.tenant.encode()).digest()  # equal images of two tenants have different digests
    pixels = count_pixels(spec.images, request.images, settings)
    images = [(blake3(data, key=tenant_key).hexdigest(), data) for data in request.images]
    enum_name(spec_pb2.Priority, spec.priority, "spec.priority")
    priority = Priority(spec.priority or Priority.NORMAL)
    timeout = check_timeout(spec, settings.default_timeout, settings.max_timeout)
    if submission.time_remaining is not None:
        timeout = max(0.001, min(timeout, submission.time_remaining))
    fresh = spec.fresh
    for name in ("priority", "timeout", "fresh"):  # which do not change the result, so are no part of the fingerprint
        spec.ClearField(name)
    spec_bytes = spec.SerializeToString(deterministic=True)
    plan = resolve_serialized(spec_bytes, card)
    _check_bounds(plan, settings)
    result_bytes = plan.result_bytes + plan.header_bytes
    if submission.is_unary and result_bytes > settings.chunk_bytes:
        raise StatusError(
            Reason.RESULT_TOO_LARGE,
            f"the result of {plan.result_bytes} bytes is too large for one message of {settings.chunk_bytes}; "
            "Visualize gives it in several",
        )
    content = "".join(digest for digest, _ in images).encode() + spec_bytes
    return NewJob(
        id=submission.job_id,
        model=card.name,
        pool=live.pools[card.name],
        tenant=submission.tenant,
        priority=priority,
        spec=spec_bytes,
        images=images,
        fingerprint=blake3(content, key=tenant_key).hexdigest(),
        cost=plan.cost(pixels),
        pixels=pixels,
        reserved=result_bytes,
        timeout=timeout,
        keep=submission.keep,
        record_bytes=RECORD_BYTES + len(spec_bytes) + IMAGE_RECORD_BYTES * len(images),
        fresh=fresh,
        request_id=submission.request_id,
    )


def count_pixels(images: Sequence[spec_pb2.Image], contents: Sequence[Data], settings: ServerSettings) -> int:
    """Check the images of a job; return their pixels, weighted by decoding time.

    They are at least LARGE_PIXELS where an image is slow enough to be decoded apart.
    """
    pairs = list(zip(images, contents, strict=True))
    pixels = sum(
        _check_image(image, content, f"spec.images[{place}]", settings) for place, (image, content) in enumerate(pairs)
    )
    if pixels > settings.max_job_pixels:
        raise SpecError(
            "spec.images",
            f"the images take as long to decode as {pixels} pixels; allowed: {settings.max_job_pixels}. Send fewer a "
            "job, or shrink them",
        )
    has_slow = any(image.HasField("encoded") and needs_own_process(content) for image, content in pairs)
    return max(pixels, LARGE_PIXELS) if has_slow else pixels


def _check_image(image: spec_pb2.Image, data: Data, field: str, settings: ServerSettings) -> int:
    """Return the pixels of an image, weighted by decoding time.

    Reads headers alone; damage inside a file is found by the worker, which decodes it.
    """
    check_value_range(image, field)
    match image.WhichOneof("source"):
        case "encoded":
            width, height, factor = _read_header(data, f"{field}.encoded")
        case "pixels":
            (height, width), factor = check_pixels(image, data, f"{field}.pixels"), 1
        case _:
            raise SpecError(field, "is empty; allowed: encoded, pixels")
    if width * height > settings.max_image_pixels:
        raise SpecError(field, f"has {width}×{height} pixels; allowed: {settings.max_image_pixels} in all")
    return width * height * factor


def _read_header(data: Data, field: str) -> tuple[int, int, int]:
    """Return width and height of an image file, and how much longer than others it takes to decode."""
    try:
        factor = decoding_factor(data)
        with contextlib.suppress(ValueError):  # Pillow reads what libjpeg-turbo cannot
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            return width, height, factor
        with open_picture(data) as header:
            check_mode(header)
            return *header.size, factor
    except PictureError as error:
        raise SpecError(field, str(error)) from None
    except DecompressionBombError:
        raise SpecError(field, f"too many pixels ({len(data)} bytes)") from None
    except Exception as error:  # Pillow's parsers raise whatever a damaged file makes them trip over
        raise SpecError(field, f"no image that can be read ({len(data)} bytes): {error}") from error


def _check_bounds(plan: JobPlan, settings: ServerSettings) -> None:
    """Check targets, bytes and passes of a plan against the limits."""
    if len(plan.targets[0]) > settings.max_targets:
        raise SpecError("spec.targets", f"has {len(plan.targets[0])} an image; allowed: {settings.max_targets}")
    if plan.result_bytes > settings.max_result_bytes:
        raise SpecError(
            "spec.visualizations",
            f"the result would take {plan.result_bytes} bytes; allowed: {settings.max_result_bytes}. Ask for fewer "
            "images, layers, channels or targets a job",
        )
    if plan.working_bytes > settings.max_working_bytes:
        raise SpecError(
            "spec.visualizations",
            f"the result would be made of {plan.working_bytes} working bytes; allowed: {settings.max_working_bytes}. "
            "Ask for fewer images, layers, channels or targets a job",
        )
    if plan.passes > settings.max_passes:
        raise SpecError(
            "spec.visualizations",
            f"the job would take {plan.passes} passes; allowed: {settings.max_passes}. Ask for fewer images, samples, "
            "steps or squares a job",
        )


def find_model(name: str, live: LiveModels, field: str, known_names: Collection[str] = ()) -> model_pb2.Model:
    """Return the card of `name`, or of the default model for an empty name.

    StatusError NO_WORKERS, which is worth a retry, for a model of `known_names`; MODEL_UNKNOWN for any other.
    """
    cards = live.models
    if card := cards.get(name or default_model(cards)):
        return card
    refusals = "".join(
        f"; {model.worker} cannot serve it: {model.reason}" for model in live.refused if model.name == name
    )
    if not cards or name in known_names:
        raise StatusError(
            Reason.NO_WORKERS,
            f"no worker serves {repr(name) if name else 'any model'} just now{refusals or _START}",
            retry_after=RETRY_SECONDS,
        )
    raise StatusError(
        Reason.MODEL_UNKNOWN,
        f"{field}: no model {name!r}; served are: {', '.join(sorted(cards))}{refusals}",
        field=field,
    )


def default_model(cards: Mapping[str, model_pb2.Model]) -> str:
    """Return the name of the model used when none is named: the first by name, real ones before synthetic ones."""
    return min(cards, key=lambda name: (cards[name].synthetic, name), default="")
