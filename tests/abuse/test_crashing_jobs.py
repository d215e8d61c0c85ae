"""A job that kills every worker that computes it delays other jobs and fails alone."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import crashing_worker
import numpy as np
import pytest
from processes import until

from convlens.client import Client, JobFailed, Saliency
from convlens.v1 import job_pb2

IMAGES = np.random.default_rng(9).integers(0, 256, (20, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def service(start_service):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(crashing_worker.__file__).parent), prepend=os.pathsep)
        yield start_service(lease=1)


def test_a_job_that_kills_its_workers_fails_alone(service, scale):
    """One worker claims these jobs together with others of the same tenant, whenever it is killed."""

    def start():
        return service.start("crashing_worker", "--model", "null=null,device_ms=20+1")[0]

    worker = start()
    target = service.server()[1]
    stop = threading.Event()

    def restart_when_killed():
        nonlocal worker
        while not stop.is_set():
            if worker.poll() is not None:
                worker = start()
            stop.wait(0.02)

    supervisor = threading.Thread(target=restart_when_killed, daemon=True)
    supervisor.start()
    with Client(target, timeout=120) as client:
        jobs = []
        for number, image in enumerate(np.tile(IMAGES, (scale, 1, 1, 1))):
            jobs.append(client.submit(image, [Saliency()], model="null", target=number, fresh=True))
            if number % 20 == 7:
                jobs.append(
                    client.submit(image, [Saliency()], model="null", target=crashing_worker.CRASHING_TARGET, fresh=True)
                )
                poison = jobs[-1]
        statuses = [job.wait() for job in jobs]
        stop.set()
        supervisor.join()
        with pytest.raises(JobFailed) as caught:
            poison.result()
    assert caught.value.reason == "ATTEMPTS_EXHAUSTED"
    failed = [status for status in statuses if status.state == job_pb2.JOB_STATE_FAILED]
    assert len(failed) == scale
    assert all(status.attempts <= 2 for status in statuses if status not in failed)
    assert until(lambda: worker.poll() is None)
