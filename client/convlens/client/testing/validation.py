"""Checks of a request that do not depend on the model's layers: images, counts, priority, timeout, ids."""

from __future__ import annotations

import re
import uuid

import numpy as np

from convlens.client.testing.cards import LIMITS
from convlens.client.testing.status import refuse
from convlens.v1 import spec_pb2, tensor_pb2, tensors, value_ranges
from convlens.v1.file_signatures import FORMATS, HEAD_BYTES, explain_unsupported, format_of


def check_spec(spec: spec_pb2.JobSpec) -> None:
    """Raise StatusError unless images, priority and timeout are allowed."""
    for field, number, limit in (
        ("spec.images", len(spec.images), LIMITS.max_images),
        ("spec.visualizations", len(spec.visualizations), LIMITS.max_visualizations),
    ):
        if not 1 <= number <= limit:
            refuse(field, f"has {number}; allowed: 1…{limit}")
    for i, image in enumerate(spec.images):
        _check_image(image, f"spec.images[{i}]")
    if spec.priority not in spec_pb2.Priority.values():
        refuse("spec.priority", f"is {spec.priority}; allowed: {', '.join(spec_pb2.Priority.keys()[1:])}")
    seconds = spec.timeout.ToNanoseconds() / 1e9
    if spec.HasField("timeout") and not 0 < seconds <= LIMITS.max_timeout.seconds:
        refuse("spec.timeout", f"is {seconds:g} s; allowed: above 0, up to {LIMITS.max_timeout.seconds} s")


def _check_image(image: spec_pb2.Image, field: str) -> None:
    allowed = spec_pb2.ValueRange.values()
    if image.pixels.datatype != tensor_pb2.DATA_TYPE_FP32:
        allowed = [spec_pb2.VALUE_RANGE_UNSPECIFIED, spec_pb2.VALUE_RANGE_0_255]
    if image.value_range not in allowed:
        refuse(f"{field}.value_range", f"is {image.value_range}; files and UINT8 pixels are in 0…255")
    match image.WhichOneof("source"):
        case "encoded":
            head = image.encoded[:HEAD_BYTES]
            if not format_of(head):
                why = explain_unsupported(head) or f"the bytes are no image of the formats {', '.join(FORMATS)}"
                refuse(f"{field}.encoded", why)
        case "pixels":
            _check_pixels(image, f"{field}.pixels")
        case _:
            refuse(field, "is empty; allowed: encoded, pixels")


def _check_pixels(image: spec_pb2.Image, field: str) -> None:
    shape = list(image.pixels.shape)
    if image.pixels.datatype not in {tensor_pb2.DATA_TYPE_UINT8, tensor_pb2.DATA_TYPE_FP32}:
        refuse(f"{field}.datatype", f"is {image.pixels.datatype}; allowed: DATA_TYPE_UINT8, DATA_TYPE_FP32")
    if len(shape) != 3 or shape[-1] not in {1, 3} or min(shape) < 1:
        refuse(f"{field}.shape", f"is {shape}; allowed: [height, width, 3], [height, width, 1]")
    try:
        pixels = tensors.decode(image.pixels)
    except tensors.TensorError as error:
        refuse(f"{field}.data", str(error))
    floats = pixels.astype(np.float32, copy=False)
    is_float = pixels.dtype == np.float32
    if is_float and (why := value_ranges.explain_refusal(float(floats.min()), float(floats.max()), image.value_range)):
        refuse(f"{field}.data", why)
    if shape[0] * shape[1] > LIMITS.max_image_pixels:
        refuse(field.removesuffix(".pixels"), f"has {shape[1]}×{shape[0]} pixels; allowed: {LIMITS.max_image_pixels}")


def job_id_of(request_id: str) -> str:
    """Return the job's id that belongs to a request id, a new one for an empty one."""
    if not request_id:
        return uuid.uuid4().hex
    if not re.fullmatch("[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", request_id):
        refuse("request_id", f"{request_id[:80]!r} is no UUID")
    return uuid.UUID(request_id).hex


def check_job_id(job_id: str) -> str:
    """Return `job_id` if it has the form of one."""
    if not re.fullmatch("[0-9a-f]{32}", job_id):
        refuse("id", f"{job_id[:80]!r} is no job id; one has 32 lower-case hex digits")
    return job_id
