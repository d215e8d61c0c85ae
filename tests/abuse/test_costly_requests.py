"""Requests that are small to send and large to parse or store are refused, and use no memory afterwards."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from resource_usage import MIB, BackgroundCaller, resident, stored_bytes

from convlens.client.stubs import Stubs
from convlens.v1 import job_pb2, spec_pb2, tensors

LIMIT = 160 * MIB
"""Allowed growth of the server's memory in bytes."""

UNKNOWN_FIELD = b"\xfa\x7f\x80\x80\x04" + bytes(64 << 10)
"""A field of 64 KiB with the number 2047, which no message has."""


@pytest.fixture(scope="module")
def server(service):
    return service.server()


@pytest.fixture
def channel(server):
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server[1], options) as channel:
        yield channel


def photo(number):
    """A photo of 48 bytes, unique for each number."""
    return np.frombuffer(number.to_bytes(48, "little"), np.uint8).reshape(4, 4, 3)


def unary(channel, method):
    """A function that sends bytes to a method of VisualizationService and returns the status of the error."""
    call = channel.unary_unary(f"/convlens.v1.VisualizationService/{method}")

    def status_of(data):
        with pytest.raises(grpc.RpcError) as caught:
            call(data, timeout=60)
        return caught.value.code()

    return status_of


def spec_of(fields):
    """Encode a VisualizeUnaryRequest whose spec consists of these serialized fields."""
    size = len(fields)
    length = bytes(size >> 7 * i & 0x7F | 0x80 for i in range(4)) + bytes([size >> 28])
    return b"\x0a" + length + fields


def requests_of_tiny_fields(size):
    """Requests of `size` bytes whose fields take two bytes each and would each become an object."""
    return {
        "images": spec_of(b"\x12\x00" * (size // 2)),
        "visualizations": spec_of(b"\x1a\x00" * (size // 2)),
        "targets": spec_of(b"\x22\x00" * (size // 2)),
        "specs": b"\x0a\x00" * (size // 2),
        "unknown": spec_of(b"\xf8\x01\x01" * (size // 3)),
    }


def test_requests_of_tiny_fields_do_not_delay_other_callers(server, channel, scale):
    call = unary(channel, "VisualizeUnary")
    data = requests_of_tiny_fields(16 * MIB)
    with BackgroundCaller(server[1]) as ordinary_caller:
        call(data["images"])  # allocates buffers that the server keeps
        before = resident(server[0])
        with ThreadPoolExecutor(2) as threads:
            codes = set(threads.map(call, [*data.values()] * scale))
    assert codes == {grpc.StatusCode.INVALID_ARGUMENT}
    assert not ordinary_caller.errors
    assert ordinary_caller.slowest < 2  # parsing one of these requests takes 11 s
    assert resident(server[0]) - before < LIMIT


def test_refused_requests_leave_nothing_in_memory(server, channel, scale):
    """Each request has too large a result and 3 MiB of unknown fields."""
    call = unary(channel, "VisualizeUnary")
    output = spec_pb2.Output(height=4096, width=4096)
    activations = [spec_pb2.Visualization(activations=spec_pb2.Activations(layers=["block1_conv1"]), output=output)]
    image = spec_pb2.Image(pixels=tensors.encode(photo(1)))

    def request(number):
        spec = spec_pb2.JobSpec(images=[image], visualizations=activations, predictions=number, model="null")
        return spec_of(spec.SerializeToString() + b"\xf8\x01\x01" * MIB)

    call(request(0))
    before = resident(server[0])
    assert {call(request(number)) for number in range(1, 1 + 100 * scale)} == {grpc.StatusCode.INVALID_ARGUMENT}
    assert resident(server[0]) - before < LIMIT


def test_only_bytes_that_are_counted_are_stored(service, server, channel, scale):
    """A tensor name of 64 KiB is not stored; unknown fields and request ids of this size are refused."""
    stubs = Stubs(channel)

    def submit(number, name="", unknown=b"", request_id=""):
        tensor = tensors.encode(photo(number))
        tensor.name = name
        spec = spec_pb2.JobSpec(
            images=[spec_pb2.Image(pixels=tensor)],
            visualizations=[spec_pb2.Visualization(saliency=spec_pb2.Saliency())],
            model="null",
        )
        spec.MergeFromString(unknown)
        return stubs.jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=spec, request_id=request_id)).job.id

    def stored_by(numbers, **filler):
        """The bytes in Redis of jobs with these extra fields, results included."""
        before = stored_bytes(service.url)
        for job in [submit(number, **filler) for number in numbers]:
            for state in stubs.jobs.WatchJob(job_pb2.WatchJobRequest(id=job)):
                last = state
            assert last.job.state == job_pb2.JOB_STATE_SUCCEEDED
        return stored_bytes(service.url) - before

    count = 50 * scale
    plain = stored_by(range(count))
    named = stored_by(range(count, 2 * count), name="0" * (64 << 10))
    assert named < plain + count * 4096
    ids = [filler * (16 << 10) + uuid.uuid4().hex for filler in ("urn:", "{", "-")]
    for fields in ({"unknown": UNKNOWN_FIELD}, *({"request_id": request_id} for request_id in ids)):
        with pytest.raises(grpc.RpcError) as caught:
            submit(0, **fields)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
