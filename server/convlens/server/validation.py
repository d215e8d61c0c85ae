"""Everything refused before anything is queued: each error names its field, what was wrong, and what is allowed."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
import numpy as np
import simplejpeg
from blake3 import blake3
from PIL.Image import DecompressionBombError

from convlens.jobs.model_registry import LiveModels
from convlens.jobs.payloads.store import Data
from convlens.jobs.queue.new_job import NewJob
from convlens.jobs.queue.record import Priority
from convlens.jobs.request.plan import JobPlan
from convlens.jobs.request.plan_cache import PlanCache
from convlens.server.requests import JobRequest
from convlens.server.settings import ServerSettings
from convlens.server.status import Refusal, invalid
from convlens.v1 import model_pb2, spec_pb2, tensor_pb2, tensors, value_ranges
from convlens.v1.image_formats import (
    LARGE_PIXELS,
    PictureError,
    check_scans,
    decoding_pixels,
    needs_own_process,
    open_picture,
)
from convlens.v1.pictures import check_mode

RECORD_BYTES: Final = 2500
"""Of a live job's record and all that finds it in Redis, without its spec and images."""
IMAGE_RECORD_BYTES: Final = 330
"""Of what finds each of its images."""
_PLANS: Final = PlanCache()
_PRIORITIES: Final = frozenset(spec_pb2.Priority.values())
_START: Final = "; start one with `convlens worker`"


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks, and how it will be answered."""

    job_id: str
    request_id: str
    tenant: str
    keep: bool
    """True for a job that is wanted whoever waits for it."""
    time_remaining: float | None = None
    """Seconds until nobody waits any more."""
    whole: bool = False
    """True where the result must be one message."""


def validate(
    request: JobRequest,
    call: Call,
    live: LiveModels,
    settings: ServerSettings,
    seen: Collection[str] = (),
) -> NewJob:
    """The job that `request` asks for, with its images. Raises Refusal or SpecError. Its spec is used up."""
    spec: spec_pb2.JobSpec = request.message.spec
    card = find_model(spec.model, live, "spec.model", seen)
    spec.model = card.name
    _count("spec.images", len(spec.images), settings.max_images)
    _count("spec.visualizations", len(spec.visualizations), settings.max_visualizations)
    owner = blake3(call.tenant.encode()).digest()
    pixels = _pixels(spec.images, request.images, settings)
    found = [(blake3(it, key=owner).hexdigest(), it) for it in request.images]
    if spec.priority not in _PRIORITIES:
        raise invalid("spec.priority", f"is {spec.priority}; allowed: {', '.join(p.name for p in Priority)}")
    priority = Priority(spec.priority or Priority.NORMAL)
    timeout = _timeout(spec, settings)
    if call.time_remaining is not None:
        timeout = max(0.001, min(timeout, call.time_remaining))
    fresh = spec.fresh
    for name in ("priority", "timeout", "fresh"):  # they change nothing of the result
        spec.ClearField(name)
    asked = spec.SerializeToString(deterministic=True)
    plan = _PLANS.resolve(asked, card)
    _check_bounds(plan, settings)
    if call.whole and plan.result_bytes + plan.header_bytes > settings.chunk_bytes:
        raise Refusal(
            grpc.StatusCode.FAILED_PRECONDITION,
            "RESULT_TOO_LARGE",
            f"the result of {plan.result_bytes} bytes is too large for one message of {settings.chunk_bytes}; "
            "Visualize gives it in several",
        )
    whole = "".join(digest for digest, _ in found).encode() + asked
    return NewJob(
        id=call.job_id,
        model=card.name,
        pool=live.pools[card.name],
        tenant=call.tenant,
        priority=priority,
        spec=asked,
        images=found,
        fingerprint=blake3(whole, key=owner).hexdigest(),
        cost=plan.cost(pixels),
        pixels=pixels,
        reserved=plan.result_bytes + plan.header_bytes,
        timeout=timeout,
        keep=call.keep,
        record_bytes=RECORD_BYTES + len(asked) + IMAGE_RECORD_BYTES * len(found),
        fresh=fresh,
        request_id=call.request_id,
    )


def _check_bounds(plan: JobPlan, settings: ServerSettings) -> None:
    """Refuses what the job would take that is more than is allowed."""
    if len(plan.targets[0]) > settings.max_targets:
        raise invalid("spec.targets", f"has {len(plan.targets[0])} an image; allowed: {settings.max_targets}")
    if plan.result_bytes > settings.max_result_bytes:
        raise invalid(
            "spec.visualizations",
            f"the result would take {plan.result_bytes} bytes; allowed: {settings.max_result_bytes}. Ask for fewer "
            "images, layers, channels or targets a job",
        )
    if plan.working_bytes > settings.max_working_bytes:
        raise invalid(
            "spec.visualizations",
            f"the result would be made of {plan.working_bytes} working bytes; allowed: {settings.max_working_bytes}. "
            "Ask for fewer images, layers, channels or targets a job",
        )
    if plan.passes > settings.max_passes:
        raise invalid(
            "spec.visualizations",
            f"the job would take {plan.passes} passes; allowed: {settings.max_passes}. Ask for fewer images, samples, "
            "steps or squares a job",
        )


def find_model(name: str, live: LiveModels, field: str, seen: Collection[str] = ()) -> model_pb2.Model:
    """The card of `name`, or of the default model for an empty one. A model `seen` before is worth waiting for."""
    cards = live.models
    if card := cards.get(name or default_model(cards)):
        return card
    why = "".join(f"; {it.worker} cannot serve it: {it.reason}" for it in live.refused if it.name == name)
    if not cards or name in seen:
        raise Refusal(
            grpc.StatusCode.UNAVAILABLE,
            "NO_WORKERS",
            f"no worker serves {repr(name) if name else 'any model'} just now{why or _START}",
            retry_after=1.0,
        )
    known = ", ".join(sorted(cards))
    raise Refusal(
        grpc.StatusCode.NOT_FOUND,
        "MODEL_UNKNOWN",
        f"{field}: no model {name!r}; served are: {known}{why}",
        field=field,
    )


def default_model(cards: Mapping[str, model_pb2.Model]) -> str:
    """The model meant when none is named: the first by name, real ones before synthetic ones; empty without any."""
    return min(cards, key=lambda name: (cards[name].synthetic, name), default="")


def job_id(request_id: str, tenant: str) -> str:
    """The id of a job: made from a canonical request id, so that a repeated call finds its job; else drawn."""
    if not request_id:
        return uuid.uuid4().hex
    return blake3(f"{tenant}/{uuid.UUID(request_id).hex}".encode()).hexdigest(16)


def canonical_request_id(text: str) -> str:
    """`text`, when it is empty or a UUID with or without hyphens: in lower case and with hyphens."""
    if not text:
        return ""
    if not re.fullmatch("[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        raise invalid("request_id", f"{text[:80]!r} is no UUID; one such as {uuid.uuid4()} is needed")
    return str(uuid.UUID(text))


def valid_job_id(text: str) -> str:
    """`text`, when it may be a job's id."""
    if len(text) != 32 or not set(text) <= set("0123456789abcdef"):
        raise invalid("id", f"{text[:80]!r} is no job id; one has 32 lower-case hex digits")
    return text


def _count(field: str, number: int, most: int) -> None:
    if not 1 <= number <= most:
        raise invalid(field, f"has {number}; allowed: 1…{most}")


def _timeout(spec: spec_pb2.JobSpec, settings: ServerSettings) -> float:
    if not spec.HasField("timeout"):
        return settings.default_timeout
    seconds = spec.timeout.seconds + spec.timeout.nanos / 1e9
    if not 0 < seconds <= settings.max_timeout:
        raise invalid("spec.timeout", f"is {seconds:g} s; allowed: above 0, up to {settings.max_timeout:g} s")
    return seconds


def _pixels(images: Sequence[spec_pb2.Image], data: Sequence[Data], settings: ServerSettings) -> int:
    """The pixels of a job, as decoding them counts: as many as a large job has where any image is decoded apart."""
    pairs = list(zip(images, data, strict=True))
    pixels = sum(_image(image, it, f"spec.images[{i}]", settings) for i, (image, it) in enumerate(pairs))
    if pixels > settings.max_job_pixels:
        raise invalid(
            "spec.images",
            f"the images take as long to decode as {pixels} pixels; allowed: {settings.max_job_pixels}. Send fewer a "
            "job, or shrink them",
        )
    return (
        max(pixels, LARGE_PIXELS)
        if any(image.HasField("encoded") and needs_own_process(it) for image, it in pairs)
        else pixels
    )


def _image(image: spec_pb2.Image, data: Data, field: str, settings: ServerSettings) -> int:
    """Its pixels, as decoding them counts.

    Refuses what is certainly no image, by its header alone; the worker decodes and finds what is broken inside.
    """
    if image.value_range not in spec_pb2.ValueRange.values():
        allowed = ", ".join(spec_pb2.ValueRange.keys())
        raise invalid(f"{field}.value_range", f"is {image.value_range}; allowed: {allowed}")
    is_float = image.pixels.datatype == tensor_pb2.DATA_TYPE_FP32
    if not is_float and image.value_range not in {spec_pb2.VALUE_RANGE_UNSPECIFIED, spec_pb2.VALUE_RANGE_0_255}:
        name = spec_pb2.ValueRange.Name(image.value_range)
        raise invalid(f"{field}.value_range", f"is {name}, which is for FP32 pixels; files and UINT8 are in 0…255")
    match image.WhichOneof("source"):
        case "encoded":
            width, height = _encoded_size(data, f"{field}.encoded")
        case "pixels":
            height, width = _pixels_size(image, data, f"{field}.pixels")
        case _:
            raise invalid(field, "is empty; allowed: encoded, pixels")
    if width * height > settings.max_image_pixels:
        raise invalid(field, f"has {width}×{height} pixels; allowed: {settings.max_image_pixels} in all")
    return decoding_pixels(data, width, height) if image.HasField("encoded") else width * height


def _encoded_size(data: Data, field: str) -> tuple[int, int]:
    """Width and height as the file's header tells them."""
    try:
        check_scans(data)
    except PictureError as error:
        raise invalid(field, str(error)) from None
    with contextlib.suppress(ValueError):  # what libjpeg-turbo cannot read, Pillow looks at
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return width, height
    try:
        with open_picture(data) as header:
            check_mode(header)
            return header.size
    except PictureError as error:
        raise invalid(field, str(error)) from None
    except DecompressionBombError:
        raise invalid(field, f"too many pixels ({len(data)} bytes)") from None
    except Exception as error:  # Pillow's parsers raise whatever a damaged file makes them trip over
        raise invalid(field, f"no image that can be read ({len(data)} bytes): {error}") from error


def _pixels_size(image: spec_pb2.Image, data: Data, field: str) -> tuple[int, int]:
    tensor = image.pixels
    if tensor.datatype not in {tensor_pb2.DATA_TYPE_UINT8, tensor_pb2.DATA_TYPE_FP32}:
        name = (
            tensor_pb2.DataType.Name(tensor.datatype) if tensor.datatype in tensor_pb2.DataType.values() else "unknown"
        )
        raise invalid(f"{field}.datatype", f"is {name}; allowed: DATA_TYPE_UINT8, DATA_TYPE_FP32")
    shape = tuple(tensor.shape)
    if len(shape) != 3 or shape[-1] not in {1, 3} or min(shape) < 1:
        raise invalid(f"{field}.shape", f"is {list(shape)}; allowed: [height, width, 3], [height, width, 1]")
    try:
        pixels = tensors.decode(tensor, data)
    except tensors.TensorError as error:
        raise invalid(f"{field}.data", str(error)) from None
    if pixels.dtype == np.float32:
        floats = pixels.view(np.float32)
        if why := value_ranges.explain_refusal(float(floats.min()), float(floats.max()), image.value_range):
            raise invalid(f"{field}.data", why)
    return int(shape[0]), int(shape[1])


def result_positions(offset: int, total: int) -> int:
    """`offset`, when it is a place in a result of `total` bytes."""
    if not 0 <= offset <= total:
        raise invalid("offset", f"is {offset}; allowed: 0…{total}")
    return offset
