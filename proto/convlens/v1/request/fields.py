"""Checks of a request that need no model card: ids, counts, ranges, pixels. Each raises a SpecError."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from convlens.v1 import job_pb2, spec_pb2, tensor_pb2, tensors, value_ranges
from convlens.v1.enums import short_name
from convlens.v1.status_error import SpecError

if TYPE_CHECKING:
    from convlens.v1.enums import WireEnum

LISTED_NAMES: Final = 40
"""Names that a message lists at most."""
DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000
"""Jobs of one page."""


def check_range(number: int, field: str, largest: int) -> int:
    """Return `number`. Raises SpecError unless it is in 1…`largest`."""
    if not 1 <= number <= largest:
        raise SpecError(field, f"is {number}; allowed: 1…{largest}")
    return number


def enum_name(enum: WireEnum[Any], value: int, field: str) -> str:
    """Return the short name of an enum's value, empty for UNSPECIFIED.

    Raises SpecError for a value that the enum does not have, such as a newer client's.
    """
    name = short_name(enum, value)
    if name is None:
        raise SpecError(field, f"is {value}; allowed: {', '.join(enum.keys()[1:])}")
    return name


def unknown_layer(field: str, layer: str, model: str, layers: Collection[str]) -> SpecError:
    """Return the error for a layer that the model does not have."""
    return SpecError(field, f"no layer {layer!r} in model {model!r}; allowed: {join_names(layers)}")


def join_names(names: Collection[str]) -> str:
    """Join names for an error message, cut after LISTED_NAMES."""
    return ", ".join(list(names)[:LISTED_NAMES]) + (", …" if len(names) > LISTED_NAMES else "")


def canonical_request_id(text: str) -> str:
    """Return a UUID, with or without hyphens, in lower case and with them; empty for an empty `text`."""
    if not text:
        return ""
    if not re.fullmatch("[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        raise SpecError("request_id", f"{text[:80]!r} is no UUID; one such as {uuid.uuid4()} is needed")
    return str(uuid.UUID(text))


def check_job_id(text: str) -> str:
    """Return `text` if it has the form of a job id."""
    if len(text) != 32 or not set(text) <= set("0123456789abcdef"):
        raise SpecError("id", f"{text[:80]!r} is no job id; one has 32 lower-case hex digits")
    return text


def check_offset(offset: int, total: int) -> int:
    """Return `offset` if it lies within a result of `total` bytes."""
    if not 0 <= offset <= total:
        raise SpecError("offset", f"is {offset}; allowed: 0…{total}")
    return offset


def check_page(request: job_pb2.ListJobsRequest) -> None:
    """Check which page of jobs is requested."""
    if not 0 <= request.page_size <= MAX_PAGE_SIZE:
        raise SpecError("page_size", f"is {request.page_size}; allowed: 0 ({DEFAULT_PAGE_SIZE}) and 1…{MAX_PAGE_SIZE}")
    if request.page_token and not re.fullmatch(r"[0-9]{1,18}", request.page_token):
        raise SpecError("page_token", "is not one that this server gave")
    if request.state not in job_pb2.JobState.values():
        raise SpecError("state", f"is {request.state}; allowed: {', '.join(job_pb2.JobState.keys())}")


def check_counts(spec: spec_pb2.JobSpec, max_images: int, max_visualizations: int) -> None:
    """Check the numbers of images and of visualizations."""
    for field, number, limit in (
        ("spec.images", len(spec.images), max_images),
        ("spec.visualizations", len(spec.visualizations), max_visualizations),
    ):
        if not 1 <= number <= limit:
            raise SpecError(field, f"has {number}; allowed: 1…{limit}")


def check_timeout(spec: spec_pb2.JobSpec, default: float, longest: float) -> float:
    """Return the timeout in seconds."""
    if not spec.HasField("timeout"):
        return default
    seconds = spec.timeout.seconds + spec.timeout.nanos / 1e9
    if not 0 < seconds <= longest:
        raise SpecError("spec.timeout", f"is {seconds:g} s; allowed: above 0, up to {longest:g} s")
    return seconds


def check_value_range(image: spec_pb2.Image, field: str) -> None:
    """Check that an image's value range exists, and fits what the image is made of."""
    if image.value_range not in spec_pb2.ValueRange.values():
        allowed = ", ".join(spec_pb2.ValueRange.keys())
        raise SpecError(f"{field}.value_range", f"is {image.value_range}; allowed: {allowed}")
    is_float = image.pixels.datatype == tensor_pb2.DATA_TYPE_FP32
    if not is_float and image.value_range not in {spec_pb2.VALUE_RANGE_UNSPECIFIED, spec_pb2.VALUE_RANGE_0_255}:
        name = spec_pb2.ValueRange.Name(image.value_range)
        raise SpecError(f"{field}.value_range", f"is {name}, which is for FP32 pixels; files and UINT8 are in 0…255")


def check_pixels(image: spec_pb2.Image, data: bytes | memoryview, field: str) -> tuple[int, int]:
    """Check an image's tensor, whose bytes are `data`; return height and width."""
    tensor = image.pixels
    if tensor.datatype not in {tensor_pb2.DATA_TYPE_UINT8, tensor_pb2.DATA_TYPE_FP32}:
        name = (
            tensor_pb2.DataType.Name(tensor.datatype) if tensor.datatype in tensor_pb2.DataType.values() else "unknown"
        )
        raise SpecError(f"{field}.datatype", f"is {name}; allowed: DATA_TYPE_UINT8, DATA_TYPE_FP32")
    shape = tuple(tensor.shape)
    if len(shape) != 3 or shape[-1] not in {1, 3} or min(shape) < 1:
        raise SpecError(f"{field}.shape", f"is {list(shape)}; allowed: [height, width, 3], [height, width, 1]")
    try:
        pixels = tensors.decode(tensor, data)
    except tensors.TensorError as error:
        raise SpecError(f"{field}.data", str(error)) from None
    if pixels.dtype == np.float32:
        floats = pixels.view(np.float32)
        if why := value_ranges.explain_refusal(float(floats.min()), float(floats.max()), image.value_range):
            raise SpecError(f"{field}.data", why)
    return shape[0], shape[1]
