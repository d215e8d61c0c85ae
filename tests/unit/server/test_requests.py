"""Requests read without a copy of their images' bytes: the same as protobuf reads, in whatever form they come."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError

from convlens.server.requests import job_request
from convlens.v1 import framing, spec_pb2, tensor_pb2
from convlens.v1.visualization_pb2 import VisualizeRequest, VisualizeStreamRequest

READ = job_request(VisualizeRequest, small=0)


def tensor(data=b"", **fields):
    return tensor_pb2.Tensor(datatype=tensor_pb2.DATA_TYPE_UINT8, shape=[1, 1, 3], data=data, **fields)


def held(request):
    """A request read, against what protobuf reads: its images' bytes."""
    for image, data in zip(request.message.spec.images, request.images, strict=True):
        assert not image.encoded
        assert not image.pixels.data
        assert isinstance(data, bytes | memoryview)
    return list(map(bytes, request.images))


def test_the_bytes_are_views_of_what_was_received():
    pixels = spec_pb2.Image(pixels=tensor(b"rgb", name="n"), value_range=spec_pb2.VALUE_RANGE_0_1)
    images = [spec_pb2.Image(encoded=b"jpeg"), pixels]
    received = VisualizeRequest(spec=spec_pb2.JobSpec(model="m", images=images), request_id="r").SerializeToString()
    request = READ(received)
    assert held(request) == [b"jpeg", b"rgb"]
    assert all(isinstance(it, memoryview) and it.obj is received for it in request.images)
    assert (request.message.request_id, request.message.spec.model) == ("r", "m")
    assert [it.WhichOneof("source") for it in request.message.spec.images] == ["encoded", "pixels"]
    assert request.message.spec.images[1].pixels == tensor(name="n")
    assert request.message.spec.images[1].value_range == spec_pb2.VALUE_RANGE_0_1


def test_the_streams_requests_are_read_alike():
    spec = spec_pb2.JobSpec(images=[spec_pb2.Image(encoded=b"jpeg")])
    received = VisualizeStreamRequest(sequence=7, spec=spec).SerializeToString()
    request = job_request(VisualizeStreamRequest, small=0)(received)
    assert held(request) == [b"jpeg"]
    assert request.message.sequence == 7


def odd(*images):
    """A request of images given as serialized bytes."""
    spec = framing.message(piece for image in images for piece in framing.field(_IMAGES, image))
    return framing.message(framing.field(1, spec))


_IMAGES = spec_pb2.JobSpec.DESCRIPTOR.fields_by_name["images"].number
ENCODED = spec_pb2.Image(encoded=b"jpeg").SerializeToString()
PIXELS = spec_pb2.Image(pixels=tensor(b"rgb")).SerializeToString()
BARE = spec_pb2.Image(pixels=tensor()).SerializeToString()
ODD = {
    "no bytes": [BARE],
    "nothing": [b"", PIXELS],
    "both, the last one counts": [ENCODED + PIXELS, PIXELS + ENCODED],
    "bytes of what does not count": [ENCODED + BARE],
    "twice": [ENCODED + spec_pb2.Image(encoded=b"png").SerializeToString()],
    "in two parts": [PIXELS + BARE],
    "two in one and none in the other": [PIXELS + PIXELS, BARE],
    "an unknown field": [ENCODED + b"\x98\x06\x01"],
}


@pytest.mark.parametrize("images", ODD.values(), ids=ODD)
def test_odd_images_are_read_as_protobuf_reads_them(images):
    received = odd(*images)
    plain = VisualizeRequest.FromString(received).spec.images
    assert held(READ(received)) == [it.pixels.data or it.encoded for it in plain]
    sources = [it.WhichOneof("source") for it in plain]
    assert [it.WhichOneof("source") for it in READ(received).message.spec.images] == sources


def test_a_spec_in_two_parts_has_the_images_of_both():
    received = odd(ENCODED) + odd(PIXELS)
    assert held(READ(received)) == [b"jpeg", b"rgb"]


@pytest.mark.parametrize("received", [b"\x0a\x05abc", b"\xff" * 20, odd(b"\x0a\xff")])
def test_what_is_no_request_is_an_error(received):
    with pytest.raises(DecodeError):
        READ(received)
