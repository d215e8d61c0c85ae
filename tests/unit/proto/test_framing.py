"""Messages put together and taken apart as bytes, held against protobuf's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlens.v1 import framing, result_pb2, spec_pb2, tensor_pb2

IMAGE_TREE = {1: None, 2: {4: None}}


def image(kind, data):
    if kind == "encoded":
        return spec_pb2.Image(encoded=data)
    return spec_pb2.Image(pixels=tensor_pb2.Tensor(name="x", datatype=3, shape=[1, 300, 3], data=data))


@given(st.sampled_from(["encoded", "pixels"]), st.binary(max_size=300))
def test_lifting_leaves_the_message_without_its_bytes(kind, data):
    whole = image(kind, data)
    pieces, found = framing.lifted(memoryview(whole.SerializeToString()), IMAGE_TREE)
    present = kind == "encoded" or data
    assert [bytes(it) for it in found] == ([data] if present else [])
    assert spec_pb2.Image.FromString(framing.message(pieces)) == image(kind, b"")


@given(st.binary(max_size=60))
def test_whatever_the_bytes_nothing_but_a_value_error_is_raised(data):
    try:
        pieces, _ = framing.lifted(memoryview(data), IMAGE_TREE)
        found = list(framing.fields(memoryview(data)))
    except ValueError:
        return
    assert b"".join(whole for _, _, whole in found) == data
    assert isinstance(framing.message(pieces), bytes)


@given(st.integers(0, 2**63 - 1), st.binary(max_size=200), st.floats(allow_nan=False, width=32))
def test_fields_are_those_of_the_message(offset, data, score):
    chunk = result_pb2.ResultChunk(offset=offset, data=data)
    found = {number: value for number, value, _ in framing.fields(memoryview(chunk.SerializeToString()))}
    assert set(found) == ({1} if offset else set()) | ({2} if data else set())
    assert bytes(found.get(2) or b"") == data
    explanation = result_pb2.Explanation(tensor="a", score=score)  # a field of a fixed size
    assert result_pb2.Explanation.FromString(
        b"".join(whole for *_, whole in framing.fields(memoryview(explanation.SerializeToString())))
    ) == explanation  # fmt: skip


@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\x80", b"\x08" + b"\xff" * 11, b"\x0b\x0c", b"\x09\x01"])
def test_what_is_no_message_is_refused(data):
    with pytest.raises(ValueError, match=r"goes beyond|64 bits"):
        list(framing.fields(memoryview(data)))


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 1 << 21])
def test_a_length_that_is_filled_in_later_is_read_as_any_other(size):
    data = framing.tag(1) + framing.patched(size) + bytes(size)
    assert len(framing.patched(size)) == len(framing.patched(0))
    assert spec_pb2.Image.FromString(data).encoded == bytes(size)
    ((number, value, whole),) = framing.fields(memoryview(data))
    assert (number, len(value), len(whole)) == (1, size, len(data))
