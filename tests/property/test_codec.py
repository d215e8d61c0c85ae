"""Whatever a tensor's message says: an array that goes back to the same bytes, or CodecError."""

from __future__ import annotations

import math

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlens.v1 import codec, tensor_pb2

SMALL = 1 << 20
quick = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def there_and_back(tensor):
    try:
        array = codec.decode(tensor)
    except codec.CodecError:
        return
    assert array.shape == tuple(tensor.shape)
    again = codec.encode(array, tensor.name)
    assert again == tensor


@given(hostile.messages(tensor_pb2.Tensor.DESCRIPTOR))
@quick
def test_any_tensor(tensor):
    there_and_back(tensor)


@given(st.lists(st.sampled_from([1, 2, 3, 2**31, 2**62, 2**63 - 1, -1]), max_size=8), st.sampled_from([1, 2, 3, 4]))
@quick
def test_shapes_whose_product_no_machine_has(shape, datatype):
    size = math.prod(shape) % 4096
    there_and_back(tensor_pb2.Tensor(datatype=datatype, shape=shape, data=bytes(size)))


@given(hostile.messages(tensor_pb2.TensorSpec.DESCRIPTOR))
@quick
def test_any_announcement(spec):
    if spec.byte_size > SMALL:
        return
    try:
        array = codec.allocate(spec)
    except codec.CodecError:
        return
    assert array.nbytes == spec.byte_size


IMPOSSIBLE = {
    "many axes": [1] * 65,
    "a vast axis": [0, 2**62],
}
"""Shapes that no array of NumPy has, though their sizes add up."""


@pytest.mark.parametrize("shape", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_tensors(shape):
    size = 8 * math.prod(shape)
    there_and_back(tensor_pb2.Tensor(datatype=tensor_pb2.DATA_TYPE_INT64, shape=shape, data=bytes(size)))


@pytest.mark.parametrize("shape", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_announcements(shape):
    size = 8 * math.prod(shape)
    spec = tensor_pb2.TensorSpec(datatype=tensor_pb2.DATA_TYPE_INT64, shape=shape, byte_size=size)
    with pytest.raises(codec.CodecError):
        codec.allocate(spec)
