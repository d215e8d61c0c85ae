"""A server's memory is bounded against callers that do not read their responses."""

from __future__ import annotations

import contextlib
import time

import grpc
import numpy as np
import pytest
from paced_reader import PacedReader
from processes import until
from resource_usage import MIB, BackgroundCaller, peak, reset_peak, resident

from convlens.client import Client
from convlens.client.stubs import Stubs
from convlens.v1 import job_pb2, spec_pb2, tensors, visualization_pb2

BUDGET = 64 * MIB
READ = "/convlens.v1.JobService/ReadJobResult"
VISUALIZE = "/convlens.v1.VisualizationService/Visualize"
UNARY = "/convlens.v1.VisualizationService/VisualizeUnary"
CALL_BYTES = 32 << 10
"""Memory of a call beside its response."""
BUSY_SECONDS = 2
"""Limit of an ordinary call: it takes at most 1 s on an idle machine, but here the load runs on the same cores."""


@pytest.fixture(scope="module")
def server(service):
    """The process and the target of a server with a budget of 64 MiB for responses."""
    process, line = service.start("convlens.server", "--port", "0", "--max-sending-bytes", str(BUDGET))
    return process, line.split()[-1]


@pytest.fixture(scope="module")
def job(server):
    """A job whose result has 4 MiB. Also computes the result of 1 MiB that serialized_request() asks for."""
    with grpc.insecure_channel(server[1]) as channel:
        stubs = Stubs(channel)
        stubs.visualizations.VisualizeUnary(visualization_pb2.VisualizeRequest(spec=activations(5)))
        jobs = stubs.jobs
        job = jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=activations(20))).job.id
        until(lambda: jobs.GetJob(job_pb2.GetJobRequest(id=job)).job.state == job_pb2.JOB_STATE_SUCCEEDED, 10)
        return jobs.GetJob(job_pb2.GetJobRequest(id=job)).job


def activations(channels) -> spec_pb2.JobSpec:
    """A small request with a result of 200 KiB a channel."""
    image = spec_pb2.Image(pixels=tensors.encode(np.zeros((8, 8, 3), np.uint8)))
    spec = spec_pb2.JobSpec(model="null", images=[image])
    visualization = spec.visualizations.add().activations
    visualization.layers.append("block1_conv1")
    visualization.channels.extend(range(channels))
    return spec


def serialized_request(path, job) -> bytes:
    """The serialized request of a call to `path` with a large response."""
    if path == READ:
        return job_pb2.ReadJobResultRequest(id=job.id).SerializeToString()
    return visualization_pb2.VisualizeRequest(spec=activations(5)).SerializeToString()


@pytest.mark.parametrize("path", [READ, VISUALIZE, UNARY])
def test_unread_responses_use_bounded_memory_and_release_it(server, job, scale, path):
    process, target = server
    calls = 16 * 12 * scale
    with BackgroundCaller(target) as ordinary_caller:
        base = resident(process)
        reset_peak(process)
        with contextlib.ExitStack() as stack:
            callers = [stack.enter_context(PacedReader(target)) for _ in range(16)]
            for _ in range(12 * scale):
                for caller in callers:
                    caller.allow(caller.call(path, serialized_request(path, job)), 4096)  # enough for the header only
                    caller.drain()
            time.sleep(1)  # in which the memory could still grow
            growth = peak(process) - base
        until(lambda: resident(process) < base + 32 * MIB + calls * CALL_BYTES / 2, 15)
    assert growth < BUDGET + 32 * MIB + calls * CALL_BYTES, f"{growth / MIB:.0f} MiB"
    assert not ordinary_caller.errors
    assert ordinary_caller.slowest < BUSY_SECONDS


def test_a_slow_reader_gets_its_result_beside_callers_that_do_not_read(service, job):
    """The budget holds 8 chunks of 32 KiB. While others wait for it, each chunk has to be read within 2 s."""
    flags = ("--max-sending-bytes", str(8 * 3 * (32 << 10)), "--chunk-bytes", str(32 << 10))
    _, line = service.start("convlens.server", "--port", "0", *flags)
    target = line.split()[-1]
    request = job_pb2.ReadJobResultRequest(id=job.id).SerializeToString()
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(PacedReader(target)) for _ in range(8)]
        for other in others:
            other.allow(other.call(READ, request), 4096)  # enough for the header, but not for a chunk
            other.drain(0.1)
        slow = stack.enter_context(PacedReader(target))
        number = slow.call(READ, request)
        end = time.monotonic() + 20
        while number not in slow.ended and not slow.is_closed and time.monotonic() < end:
            slow.allow(number, 100 << 10)
            slow.drain(0.1)
        assert slow.read[number] > job.result_bytes
        assert number in slow.ended
        for other in others:
            other.drain(0.1)
        assert any(other.is_closed for other in others)
        with Client(target, timeout=30) as client:
            assert client.job(job.id).result()
