"""Requests as they come in: counted before anything is made of their parts, then parsed by protobuf.

A few bytes of a request can become a large object, such as an empty submessage, so what is not an image's bytes is
bounded before it is parsed. What this server does not know is refused: ignored, it would change what a map means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from convlens.server.status import Refusal, invalid
from convlens.v1 import framing, spec_pb2, tensor_pb2

LARGE: Final = 1 << 20
"""Bytes of a request from which on it is not parsed in the event loop."""
MOST_FIELDS: Final = 8192
"""Of a request for a job: its own, its spec's, its images' and their tensors'."""
MOST_BYTES: Final = 128 << 10
"""Of a request for a job, its images' bytes not counted. Of a spec, therefore, as it is stored."""

_IMAGES: Final = spec_pb2.JobSpec.DESCRIPTOR.fields_by_name["images"].number
_ENCODED, _PIXELS = (spec_pb2.Image.DESCRIPTOR.fields_by_name[name].number for name in ("encoded", "pixels"))
_IMAGE: Final = {_ENCODED: None, _PIXELS: {tensor_pb2.Tensor.DESCRIPTOR.fields_by_name["data"].number: None}}


@dataclass(frozen=True, slots=True, weakref_slot=True)
class JobRequest:
    """A request for a job."""

    message: Any
    """A message with a spec, without the images' bytes."""
    images: Sequence[bytes]
    """The bytes of each image of its spec."""

    @property
    def size(self) -> int:
        """Bytes of the images."""
        return sum(map(len, self.images))


def reader(message: type[Message]) -> Callable[[bytes], Any]:
    """What reads serialized requests of the type `message`: one with a JobSpec as `spec` becomes a JobRequest.

    It raises a Refusal for what is no such message, is too large, or has fields that are not known.
    """
    spec = message.DESCRIPTOR.fields_by_name.get("spec")
    images = {spec.number: {_IMAGES: _IMAGE}} if spec else {}

    def read(data: bytes) -> Any:
        try:
            if spec:
                _count(data, images)
            parsed = message.FromString(data)
        except (DecodeError, ValueError):
            raise no_message(data) from None
        request = _job_request(parsed) if spec else None
        if _drops_fields(request.message if request else parsed):
            path, number = next(_unknown(message.FromString(data)))
            raise invalid(
                path or "request", f"has a field {number}, which this server does not know; is its client newer?"
            )
        return request or parsed

    return read


def no_message(data: bytes) -> Refusal:
    """What bytes that cannot be parsed are refused by."""
    return invalid("request", f"its {len(data)} bytes are no message of the type that this method takes")


def _job_request(message: Any) -> JobRequest:
    images = [_take_bytes(image) for image in message.spec.images]
    rest = type(message)()
    rest.CopyFrom(message)  # a message keeps the memory of what was taken out of it
    return JobRequest(rest, images)


def _take_bytes(image: spec_pb2.Image) -> bytes:
    """Takes an image's bytes out of it, and the name of its tensor, which means nothing here."""
    if image.WhichOneof("source") == "pixels":
        data = image.pixels.data
        image.pixels.ClearField("data")
        image.pixels.ClearField("name")
        return data
    data = image.encoded
    if data:
        image.encoded = b""  # still set, unlike one that was never given
    return data


def _count(data: bytes, images: framing.Tree) -> None:
    """Refuses a serialized request of too many fields, or of too many bytes beside those of its images.

    ValueError for what is no message.
    """
    fields = size = 0
    for number in _sizes(memoryview(data), images):
        fields, size = fields + 1, size + number
        if fields > MOST_FIELDS:
            raise invalid("request", f"has more than {MOST_FIELDS} fields, those of its images included")
        if size > MOST_BYTES:
            raise invalid("request", f"has more than {MOST_BYTES} bytes that are not its images'")


def _sizes(data: memoryview, images: framing.Tree) -> Iterator[int]:
    """By field, of messages that `images` leads to as well: the bytes of it that are neither an image's nor theirs."""
    for number, value, whole in framing.fields(data):
        inner = images.get(number, {})
        if value is None or inner == {}:
            yield len(whole)
            continue
        yield len(whole) - len(value)
        if inner is not None:
            yield from _sizes(value, inner)


def _drops_fields(message: Message) -> bool:
    """Drops the fields, at any depth, that a message's type does not have; whether there were any."""
    size = message.ByteSize()
    message.DiscardUnknownFields()
    return message.ByteSize() < size


def _unknown(message: Message, path: str = "") -> Iterator[tuple[str, int]]:
    """The unknown fields of a message and of those in it: the path of the message, and the field's number."""
    unknown: Any = UnknownFieldSet(message)
    for field in unknown:
        yield path, field.field_number
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        name = f"{path}.{field.name}" if path else field.name
        places = ((f"{name}[{i}]", it) for i, it in enumerate(value)) if field.is_repeated else [(name, value)]
        for place, inner in places:
            yield from _unknown(inner, place)
