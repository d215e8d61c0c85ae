"""Requests are bounded before they are parsed, parsed by protobuf, and rejected where they have unknown fields."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from convlens.server.requests import MAX_BYTES, MAX_FIELDS, JobRequest, make_parser
from convlens.v1 import job_pb2, spec_pb2, tensor_pb2
from convlens.v1.status_error import StatusError
from convlens.v1.visualization_pb2 import VisualizeRequest

PARSE = make_parser(VisualizeRequest)
MIB = 1 << 20


def tensor(data=b"", **fields):
    return tensor_pb2.Tensor(datatype=tensor_pb2.DATA_TYPE_UINT8, shape=[1, 1, 3], data=data, **fields)


def varint(number):
    return b"" if not number else bytes([number & 0x7F | (0x80 if number > 0x7F else 0)]) + varint(number >> 7)


def field(number, value):
    """A field of bytes, serialized."""
    return varint(number << 3 | 2) + (varint(len(value)) or b"\0") + value


def rejection(data, parse=PARSE):
    with pytest.raises(StatusError) as caught:
        parse(data)
    return caught.value


def test_the_bytes_of_images_are_extracted_from_the_message():
    pixels = spec_pb2.Image(pixels=tensor(b"rgb", name="n" * 1000), value_range=spec_pb2.VALUE_RANGE_0_1)
    images = [spec_pb2.Image(encoded=b"jpeg"), pixels]
    request = PARSE(
        VisualizeRequest(spec=spec_pb2.JobSpec(model="m", images=images), request_id="r").SerializeToString()
    )
    assert isinstance(request, JobRequest)
    assert list(request.images) == [b"jpeg", b"rgb"]
    assert request.size == 7
    assert (request.message.request_id, request.message.spec.model) == ("r", "m")
    assert [image.WhichOneof("source") for image in request.message.spec.images] == ["encoded", "pixels"]
    assert request.message.spec.images[1].pixels == tensor()  # without the name, which nobody reads
    assert request.message.spec.images[1].value_range == spec_pb2.VALUE_RANGE_0_1
    assert not request.message.spec.images[0].encoded


def test_concatenated_requests_are_merged_as_protobuf_merges_them():
    parts = [VisualizeRequest(spec=spec_pb2.JobSpec(images=[spec_pb2.Image(encoded=data)])) for data in (b"a", b"b")]
    parts.append(VisualizeRequest(spec=spec_pb2.JobSpec(model="m"), request_id="r"))
    request = PARSE(b"".join(part.SerializeToString() for part in parts))
    assert list(request.images) == [b"a", b"b"]
    assert request.message.spec.model == "m"


def test_an_image_with_empty_bytes_differs_from_one_without_source():
    images = [spec_pb2.Image(encoded=b""), spec_pb2.Image(), spec_pb2.Image(pixels=tensor())]
    request = PARSE(VisualizeRequest(spec=spec_pb2.JobSpec(images=images)).SerializeToString())
    assert [image.WhichOneof("source") for image in request.message.spec.images] == ["encoded", None, "pixels"]


FLOODS = {
    "images": field(1, b"\x12\x00" * (8 * MIB)),
    "visualizations": field(1, b"\x1a\x00" * (8 * MIB)),
    "targets of one field each": field(1, b"\x22\x02\x08\x01" * (4 * MIB)),
    "specs": b"\x0a\x00" * (8 * MIB),
    "unknown fields": b"\xf8\x01\x01" * (5 * MIB),
    "unknown fields of the spec": field(1, b"\xf8\x01\x01" * (5 * MIB)),
    "unknown fields of an image": field(1, field(2, b"\xf8\x01\x01" * (5 * MIB))),
    "one unknown field": field(30, bytes(16 * MIB)),
    "a request id": field(2, b"0" * (16 * MIB)),
    "a model's name": field(1, field(1, b"m" * (16 * MIB))),
    "a tensor's name": field(1, field(2, field(2, tensor(name="n" * (16 * MIB)).SerializeToString()))),
    "a tensor's axes": field(1, field(2, field(2, tensor_pb2.Tensor(shape=[1] * (8 * MIB)).SerializeToString()))),
    "layers": field(1, field(3, field(3, b"\x0a\x00" * (2 * MIB)))),
    "a number without an end": b"\x08" + b"\xff" * (16 * MIB),
    "a length without an end": field(1, b"\xff" * (16 * MIB)),
    "groups": b"\x0b" * (8 * MIB),
}


@pytest.mark.parametrize("data", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_small_fields_is_rejected_fast_and_without_memory(data):
    tracemalloc.start()
    started = time.process_time()
    try:
        error = rejection(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 0.5  # milliseconds; tracing makes it many times slower
    assert peak < MIB
    assert error.code.name == "INVALID_ARGUMENT"
    assert error.field == "request"
    assert any(text in error.message for text in (str(MAX_FIELDS), str(MAX_BYTES), "no message"))


def test_large_images_are_accepted():
    images = [spec_pb2.Image(encoded=bytes(MIB)), spec_pb2.Image(pixels=tensor(bytes(MIB)))] * 8
    request = PARSE(VisualizeRequest(spec=spec_pb2.JobSpec(images=images)).SerializeToString())
    assert request.size == 16 * MIB


def test_an_unknown_field_is_rejected_with_its_number_and_path():
    """Ignored, it could change what the map means."""
    assert "request: has a field 200" in rejection(field(200, b"x")).message
    assert "spec: has a field 200" in rejection(field(1, field(200, b"x"))).message
    images = field(2, field(1, b"a")) + field(2, field(1, b"b") + field(200, b"x"))
    assert rejection(field(1, images)).field == "spec.images[1]"
    deep = field(1, field(3, field(1, varint(90 << 3) + b"\x01")))
    assert rejection(deep).field == "spec.visualizations[0].saliency"
    assert "has a field 9" in rejection(field(9, b""), make_parser(job_pb2.GetJobRequest)).message


def test_malformed_bytes_are_rejected_with_their_size():
    for data in (b"\x0a\x05spec", b"\xff" * 20, b"\x0a", field(2, b"\xff\xfe")):
        assert f"its {len(data)} bytes are no message" in rejection(data).message
