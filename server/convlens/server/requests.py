"""Requests as they come in: the images' bytes stay where they are in what was received, the rest becomes a message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from convlens.v1 import framing, spec_pb2, tensor_pb2, visualization_pb2

_IMAGES: Final = spec_pb2.JobSpec.DESCRIPTOR.fields_by_name["images"].number
_ENCODED, _PIXELS = (spec_pb2.Image.DESCRIPTOR.fields_by_name[name].number for name in ("encoded", "pixels"))
_BYTES: Final = {_ENCODED: None, _PIXELS: {tensor_pb2.Tensor.DESCRIPTOR.fields_by_name["data"].number: None}}

_SHARING: Final = (visualization_pb2.VisualizeRequest, visualization_pb2.VisualizeUnaryRequest)
SMALL: Final = 1 << 15
"""Bytes."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class JobRequest:
    """A request for a job."""

    message: Any
    """A message with a spec, without the images' bytes."""
    images: Sequence[framing.Data]
    """The bytes of each image of its spec."""

    @property
    def memory(self) -> visualization_pb2.SharedMemory | None:
        """Where its caller has the images instead, and takes the result; None: nowhere."""
        message = self.message
        shares = isinstance(message, _SHARING) and message.HasField("shared_memory")
        return message.shared_memory if shares else None

    @property
    def size(self) -> int:
        """Bytes of the images, wherever they are."""
        return sum(self.memory.sizes) if self.memory else sum(map(len, self.images))


def job_request(message: type[Message], small: int = SMALL) -> Callable[[bytes], JobRequest]:
    """What reads serialized requests of the type `message`, which has a JobSpec as `spec`. It raises DecodeError.

    Of those of `small` size the images' bytes are copied, which is sooner done.
    """
    spec = message.DESCRIPTOR.fields_by_name["spec"].number

    def read(data: bytes) -> JobRequest:
        found = _lifted(memoryview(data), spec) if len(data) > small else None
        if found is None:
            whole = message.FromString(data)
            return JobRequest(whole, [_taken(image) for image in whole.spec.images])  # type: ignore[attr-defined]
        rest, images = found
        return JobRequest(message.FromString(framing.message(rest)), images)

    return read


def _lifted(data: memoryview, spec: int) -> tuple[list[framing.Data], list[framing.Data]] | None:
    """The request's pieces and its images' bytes; None unless each image comes with its bytes once."""
    rest: list[framing.Data] = []
    images: list[framing.Data] = []
    try:
        for number, value, whole in framing.fields(data):
            if number != spec or value is None:
                rest.append(whole)
                continue
            pieces: list[framing.Data] = []
            for inner, image, field in framing.fields(value):
                if inner != _IMAGES or image is None:
                    pieces.append(field)
                    continue
                about, found = framing.lifted(image, _BYTES)
                if len(found) != 1 or sum(it in _BYTES for it, _, _ in framing.fields(image)) != 1:
                    return None
                pieces += framing.field(_IMAGES, *about)
                images += found
            rest += framing.field(spec, *pieces)
    except ValueError:
        return None
    return rest, images


def _taken(image: spec_pb2.Image) -> bytes:
    """The bytes of an image, taken out of it."""
    if image.WhichOneof("source") == "pixels":
        data = image.pixels.data
        image.pixels.ClearField("data")
    else:
        data = image.encoded
        if data:
            image.encoded = b""
    return data
