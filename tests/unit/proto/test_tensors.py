"""Arrays and tensors: conversion is lossless both ways, and what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convlens.v1 import tensor_pb2, tensors

DTYPES = ["<f4", "<f2", "u1", "<i8"]


@given(st.sampled_from(DTYPES).flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))))
def test_a_round_trip_changes_no_bit(array):
    back = tensors.decode(tensor_pb2.Tensor.FromString(tensors.encode(array, "x").SerializeToString()))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_decoding_copies_nothing():
    tensor = tensors.encode(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert not tensors.decode(tensor).flags.owndata


def test_a_transposed_array_is_sent_row_major():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(tensors.decode(tensors.encode(array)), array)


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<i4", "?"])
def test_a_dtype_that_the_wire_lacks_is_refused(dtype):
    with pytest.raises(tensors.TensorError, match="cannot be sent"):
        tensors.encode(np.zeros(2, dtype))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": b"123"}, "has 3 bytes, but shape .* takes 8"),
        ({"shape": [-1, -2]}, "negative"),
        ({"shape": [1 << 40, 1 << 40]}, "takes"),
        ({"datatype": 0}, "none of"),
        ({"datatype": 77}, "none of"),
    ],
)
def test_a_tensor_that_is_no_array_is_refused(change, message):
    fields = {"datatype": tensor_pb2.DATA_TYPE_FP32, "shape": [2], "data": b"\0" * 8} | change
    with pytest.raises(tensors.TensorError, match=message):
        tensors.decode(tensor_pb2.Tensor(**fields))


def test_an_announced_array_is_verified_by_its_checksum():
    array = np.arange(5, dtype=np.float32)
    spec = tensors.describe(array, "x")
    received = tensors.allocate(spec)
    tensors.buffer_of(received)[:] = bytes(tensors.buffer_of(array))
    tensors.verify(received, spec)
    received[3] += 1
    with pytest.raises(tensors.TensorError, match="CRC-32"):
        tensors.verify(received, spec)


def test_an_announcement_that_contradicts_itself_is_refused():
    spec = tensors.describe(np.zeros(4, np.float32), "x")
    spec.byte_size = 17
    with pytest.raises(tensors.TensorError, match="17"):
        tensors.allocate(spec)
