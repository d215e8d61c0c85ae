"""Timeouts against a real server: infinity means the server's maximum, and 0 returns the present state."""

from __future__ import annotations

import math

import numpy as np
import pytest
from processes import until

from convlens.client import AsyncClient, Client, DeadlineExceeded, GradCAM, JobStatus
from convlens.v1 import job_pb2

PHOTO = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def target(start_service):
    """The target of a service with a default timeout of 0.5 s, a maximum of 10 s and a device that takes 1 s."""
    service = start_service(default_timeout=0.5, max_timeout=10)
    service.worker("null=null,device_ms=1000+0", flags=("--max-batch-size", "1", "--consumers", "1"))
    target = service.server()[1]
    with Client(target) as client:
        until(client.models)
    return target


async def test_a_call_without_a_limit_has_the_servers_maximum(target):
    with Client(target) as client:
        with pytest.raises(DeadlineExceeded):
            client.grad_cam(PHOTO, fresh=True)  # by the server's default
        for timeout in (math.inf, 1e300, 600):
            assert client.grad_cam(PHOTO, timeout=timeout, fresh=True)["grad_cam"].shape == (1, 14, 14)
        assert len(list(client.map([PHOTO], [GradCAM()], timeout=math.inf, fresh=True))) == 1
    async with AsyncClient(target, timeout=math.inf) as client:
        assert (await client.grad_cam(PHOTO, fresh=True))["grad_cam"].shape == (1, 14, 14)


async def test_a_job_without_a_limit_has_the_servers_maximum(target):
    def seconds(job: JobStatus) -> float:
        return (job.deadline - job.create_time).total_seconds()

    with Client(target) as client:
        jobs = {
            time: client.submit(PHOTO, [GradCAM()], timeout=time, fresh=True) for time in (None, 2.5, math.inf, 1e300)
        }
        timeouts = [seconds(job.status()) for job in jobs.values()]
        assert timeouts == pytest.approx([0.5, 2.5, 10, 10], abs=0.01)
        assert jobs[math.inf].result(math.inf)["grad_cam"].shape == (1, 14, 14)
    async with AsyncClient(target) as client:
        job = await client.submit(PHOTO, [GradCAM()], timeout=math.inf, fresh=True)
        assert seconds(await job.status()) == pytest.approx(10, abs=0.01)


async def test_a_timeout_of_0_does_not_wait(target):
    with Client(target) as client:
        job = client.submit(PHOTO, [GradCAM()], timeout=10, fresh=True)
        for method in (job.wait, job.result):
            with pytest.raises(DeadlineExceeded, match="had not ended after 0 s") as caught:
                method(0)
            assert caught.value.reason == "WAIT_TIMEOUT"
        states = job.watch(0)
        assert next(states).state < job_pb2.JOB_STATE_SUCCEEDED
        job.wait()
        assert job.wait(0).state == job_pb2.JOB_STATE_SUCCEEDED
        assert job.result(0)["grad_cam"].shape == (1, 14, 14)
    async with AsyncClient(target) as other:
        same = other.job(job.id)
        assert (await same.wait(0)).state == job_pb2.JOB_STATE_SUCCEEDED
        assert (await same.result(0))["grad_cam"].shape == (1, 14, 14)
