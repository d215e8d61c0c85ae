"""Any message of a tensor is decoded to an array that encodes to the same bytes, or refused as a TensorError."""

from __future__ import annotations

import math

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlens.v1 import tensor_pb2, tensors

SMALL = 1 << 20
quick = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def assert_round_trip(tensor):
    try:
        array = tensors.decode(tensor)
    except tensors.TensorError:
        return
    assert array.shape == tuple(tensor.shape)
    encoded = tensors.encode(array, tensor.name)
    assert encoded == tensor


@given(hostile.messages(tensor_pb2.Tensor.DESCRIPTOR))
@quick
def test_any_tensor_is_decoded_or_refused(tensor):
    assert_round_trip(tensor)


@given(st.lists(st.sampled_from([1, 2, 3, 2**31, 2**62, 2**63 - 1, -1]), max_size=8), st.sampled_from([1, 2, 3, 4]))
@quick
def test_shapes_of_huge_products_are_decoded_or_refused(shape, datatype):
    size = math.prod(shape) % 4096
    assert_round_trip(tensor_pb2.Tensor(datatype=datatype, shape=shape, data=bytes(size)))


@given(hostile.messages(tensor_pb2.TensorSpec.DESCRIPTOR))
@quick
def test_any_spec_is_allocated_or_refused(spec):
    if spec.byte_size > SMALL:
        return
    try:
        array = tensors.allocate(spec)
    except tensors.TensorError:
        return
    assert array.nbytes == spec.byte_size


IMPOSSIBLE = {
    "many axes": [1] * 65,
    "a vast axis": [0, 2**62],
}
"""Shapes that no array of NumPy has, though their sizes add up."""


@pytest.mark.parametrize("shape", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_tensors_of_impossible_shapes_are_refused(shape):
    size = 8 * math.prod(shape)
    assert_round_trip(tensor_pb2.Tensor(datatype=tensor_pb2.DATA_TYPE_INT64, shape=shape, data=bytes(size)))


@pytest.mark.parametrize("shape", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_specs_of_impossible_shapes_are_refused(shape):
    size = 8 * math.prod(shape)
    spec = tensor_pb2.TensorSpec(datatype=tensor_pb2.DATA_TYPE_INT64, shape=shape, byte_size=size)
    with pytest.raises(tensors.TensorError):
        tensors.allocate(spec)
