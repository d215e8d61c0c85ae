"""Parses requests: bounded before they are parsed, by protobuf, without unknown fields.

A few bytes of a request can become a large object, such as an empty submessage, so everything but the bytes of images
is bounded by a scan of the serialized request. Unknown fields are rejected: ignored, they would change what a map
means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from convlens.v1 import spec_pb2, tensor_pb2
from convlens.v1.status_error import SpecError, StatusError

PARSE_IN_THREAD_BYTES: Final = 1 << 20
"""A request from this size on is not parsed in the event loop."""
MAX_FIELDS: Final = 8192
"""Fields of a request with a spec: its own and those of the spec, the images and their tensors."""
MAX_BYTES: Final = 128 << 10
"""Bytes of a request with a spec, without those of its images: so a bound for the spec as it is stored, too."""

_Tree = Mapping[int, "_Tree"]
"""Field numbers to descend into; an empty one: the bytes of an image."""
_IMAGES: Final = spec_pb2.JobSpec.DESCRIPTOR.fields_by_name["images"].number
_ENCODED, _PIXELS = (spec_pb2.Image.DESCRIPTOR.fields_by_name[name].number for name in ("encoded", "pixels"))
_DATA: Final = tensor_pb2.Tensor.DESCRIPTOR.fields_by_name["data"].number
_IMAGE: Final[_Tree] = {_ENCODED: {}, _PIXELS: {_DATA: {}}}
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED_SIZES: Final = {1: 8, 5: 4}
"""Bytes by wire type."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class JobRequest:
    """A request with a JobSpec."""

    message: Any
    """Without the bytes of the images."""
    images: Sequence[bytes]
    """The bytes of each image of the spec."""

    @property
    def size(self) -> int:
        """Bytes of the images."""
        return sum(map(len, self.images))


def make_parser(message: type[Message]) -> Callable[[bytes], Any]:
    """Make the parser of a message type; one with a JobSpec as `spec` is parsed to a JobRequest.

    The parser raises StatusError for bytes that are no such message, are too many, or contain unknown fields.
    """
    spec = message.DESCRIPTOR.fields_by_name.get("spec")
    tree: _Tree = {spec.number: {_IMAGES: _IMAGE}} if spec else {}

    def parse(data: bytes) -> Any:
        try:
            if spec:
                _check_size(data, tree)
            parsed = message.FromString(data)
        except (DecodeError, ValueError):
            raise malformed_request(data) from None
        request = _extract_images(parsed) if spec else None
        if _discard_unknown_fields(request.message if request else parsed):
            path, number = next(_unknown_fields(message.FromString(data)))
            raise SpecError(
                path or "request", f"has a field {number}, which this server does not know; is its client newer?"
            )
        return request or parsed

    return parse


def malformed_request(data: bytes) -> StatusError:
    """Describe bytes that are no message of the expected type."""
    return SpecError("request", f"its {len(data)} bytes are no message of the type that this method takes")


def _extract_images(message: Any) -> JobRequest:
    images = [_extract_bytes(image) for image in message.spec.images]
    rest = type(message)()
    rest.CopyFrom(message)  # a message keeps the memory of its former values; the copy does not
    return JobRequest(rest, images)


def _extract_bytes(image: spec_pb2.Image) -> bytes:
    """Clear and return an image's bytes. Clears the name of its tensor, too, which has no meaning."""
    if image.WhichOneof("source") == "pixels":
        data = image.pixels.data
        image.pixels.ClearField("data")
        image.pixels.ClearField("name")
        return data
    data = image.encoded
    if data:
        image.encoded = b""  # still the set member of the oneof
    return data


def _check_size(data: bytes, tree: _Tree) -> None:
    """Check number of fields and bytes of a serialized request. ValueError for bytes that are no message."""
    fields = size = 0
    for own_bytes in _own_bytes(memoryview(data), tree):
        fields, size = fields + 1, size + own_bytes
        if fields > MAX_FIELDS:
            raise SpecError("request", f"has more than {MAX_FIELDS} fields, those of its images included")
        if size > MAX_BYTES:
            raise SpecError("request", f"has more than {MAX_BYTES} bytes that are not its images'")


def _own_bytes(data: memoryview, tree: _Tree) -> Iterator[int]:
    """Yield the bytes of each field, without an image's bytes and without those of fields that `tree` descends into."""
    for number, value, size in _scan_fields(data):
        inner = tree.get(number)
        if value is None or inner is None:
            yield size
        else:
            yield size - len(value)
            if inner:
                yield from _own_bytes(value, inner)


def _scan_fields(data: memoryview) -> Iterator[tuple[int, memoryview | None, int]]:
    """Yield number, value (of length-delimited fields, else None) and serialized size of each field.

    ValueError for what is no message; groups are none.
    """
    position, end = 0, len(data)
    while position < end:
        start = position
        key, position = _read_varint(data, position)
        value = None
        wire_type = key & 7
        if wire_type == _VARINT:
            _, position = _read_varint(data, position)
        elif wire_type == _LENGTH_DELIMITED:
            length, position = _read_varint(data, position)
            value = data[position : position + length]
            position += length
        else:
            position += _FIXED_SIZES.get(wire_type, end + 1)
        if position > end:
            raise ValueError(f"the field at byte {start} is truncated or of unknown wire type {wire_type}")
        yield key >> 3, value, position - start


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return the number at `position`, and the position behind it."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a varint is truncated or too long")


def _discard_unknown_fields(message: Message) -> bool:
    """Discard the unknown fields of a message, at any depth; whether there were any."""
    size = message.ByteSize()
    message.DiscardUnknownFields()
    return message.ByteSize() < size


def _unknown_fields(message: Message, path: str = "") -> Iterator[tuple[str, int]]:
    """Yield the unknown fields, at any depth: the path of their message, and their number."""
    unknown: Any = UnknownFieldSet(message)
    for field in unknown:
        yield path, field.field_number
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        name = f"{path}.{field.name}" if path else field.name
        is_single = isinstance(value, Message)  # protobuf 5 has no field.is_repeated
        members = [(name, value)] if is_single else ((f"{name}[{i}]", member) for i, member in enumerate(value))
        for member_path, member in members:
            yield from _unknown_fields(member, member_path)
