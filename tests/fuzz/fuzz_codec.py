"""Fuzzes the tensor codec: whatever the message, an array that goes back to the same bytes, or CodecError."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import atheris

with atheris.instrument_imports():
    from convlens.v1 import codec

from google.protobuf.message import DecodeError

from convlens.v1 import tensor_pb2

MOST = 1 << 24
"""Bytes of an array that is really allocated."""


def possible(shape: Sequence[int]) -> bool:
    """False for what NumPy has not; tests/property/test_codec.py says what becomes of those."""
    return len(shape) <= 64 and math.prod(max(1, it) for it in shape) < 1 << 60


def once(data: bytes) -> None:
    """A tensor, or the announcement of one."""
    kind, body = data[:1], data[1:]
    try:
        if kind == b"\1":
            announced(tensor_pb2.TensorSpec.FromString(body))
        else:
            whole(tensor_pb2.Tensor.FromString(body))
    except (DecodeError, codec.CodecError):
        return


def whole(tensor: tensor_pb2.Tensor) -> None:
    """There and back."""
    if not possible(tensor.shape):
        return
    array = codec.decode(tensor)
    assert array.shape == tuple(tensor.shape)
    assert array.nbytes == len(tensor.data) == codec.byte_size(tensor.datatype, tensor.shape)
    assert codec.encode(array).data == tensor.data
    codec.verify(array, codec.describe(array, tensor.name))


def announced(spec: tensor_pb2.TensorSpec) -> None:
    """An array for what is to come."""
    if codec.byte_size(spec.datatype, spec.shape) <= MOST and possible(spec.shape):
        array = codec.allocate(spec)
        assert array.shape == tuple(spec.shape)
        codec.verify(array, spec)


if __name__ == "__main__":
    atheris.Setup(sys.argv, once)
    atheris.Fuzz()
