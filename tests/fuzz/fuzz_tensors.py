"""Fuzz tensors: any message gives an array that encodes to the same bytes, or TensorError."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import atheris

with atheris.instrument_imports():
    from convlens.v1 import tensors

from google.protobuf.message import DecodeError

from convlens.v1 import tensor_pb2

MAX_BYTES = 1 << 24
"""Bytes of the largest array that is allocated."""


def is_possible(shape: Sequence[int]) -> bool:
    """Return whether NumPy has such arrays; tests/property/test_tensors.py has the shapes that it does not."""
    return len(shape) <= 64 and math.prod(max(1, length) for length in shape) < 1 << 60


def fuzz_one(data: bytes) -> None:
    """Check a Tensor, or, after a byte 1, a TensorSpec."""
    kind, body = data[:1], data[1:]
    try:
        if kind == b"\1":
            check_spec(tensor_pb2.TensorSpec.FromString(body))
        else:
            check_tensor(tensor_pb2.Tensor.FromString(body))
    except (DecodeError, tensors.TensorError):
        return


def check_tensor(tensor: tensor_pb2.Tensor) -> None:
    """Decode a tensor and encode it again."""
    if not is_possible(tensor.shape):
        return
    array = tensors.decode(tensor)
    assert array.shape == tuple(tensor.shape)
    assert array.nbytes == len(tensor.data) == tensors.byte_size(tensor.datatype, tensor.shape)
    assert tensors.encode(array).data == tensor.data
    tensors.verify(array, tensors.describe(array, tensor.name))


def check_spec(spec: tensor_pb2.TensorSpec) -> None:
    """Allocate the array that a spec describes."""
    if tensors.byte_size(spec.datatype, spec.shape) <= MAX_BYTES and is_possible(spec.shape):
        array = tensors.allocate(spec)
        assert array.shape == tuple(spec.shape)
        tensors.verify(array, spec)


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
