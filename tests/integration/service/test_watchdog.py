"""A worker that hangs ends by itself, and one that is only busy does not."""

from __future__ import annotations

import os
from pathlib import Path

import hanging_worker
import numpy as np
import pytest
from processes import running, until

from convlens.client import Client, GradCAM
from convlens.v1 import job_pb2
from convlens.worker.pipeline.watchdog import HUNG

IMAGE = np.zeros((224, 224, 3), np.uint8)
NULL = ("--model", "null=null")
INTERPRETER = 1
"""The exit status where faulthandler ends a process."""


@pytest.mark.parametrize(
    ("target", "status"), [(hanging_worker.HANGING_TARGET, HUNG), (hanging_worker.GIL_TARGET, INTERPRETER)]
)
def test_a_hung_device_ends_its_worker_whose_jobs_others_take(tmp_path, valkey, monkeypatch, target, status):
    monkeypatch.setenv("PYTHONPATH", str(Path(hanging_worker.__file__).parent), prepend=os.pathsep)
    with running(tmp_path, valkey, lease=1) as service:
        worker, _ = service.start("hanging", *NULL, "--device-timeout", "1", "--max-batch-size", "1")
        _, address = service.server()
        with Client(address, timeout=60) as client:
            until(client.models)
            guilty = client.submit(IMAGE, [GradCAM()], target=target)
            until(lambda: guilty.status().state == job_pb2.JOB_STATE_RUNNING)
            waiting = [client.submit(IMAGE, [GradCAM()], target=unit) for unit in range(3)]
            assert worker.wait(30) == status
            service.worker("null=null")
            for job in (guilty, *waiting):
                job.result()
            assert guilty.status().attempts == 2
            if status == HUNG:  # it could still give back what had not been begun
                assert [job.status().attempts for job in waiting] == [1, 1, 1]


def test_a_busy_worker_is_no_deaf_one(tmp_path, valkey):
    with running(tmp_path, valkey) as service:
        flags = ("--delivery-timeout", "0.5", "--device-timeout", "1", "--consumers", "1", "--max-batch-size", "1")
        worker = service.worker("null=null,device_ms=300+0", flags=flags)
        _, address = service.server()
        with Client(address, timeout=60) as client:
            until(client.models)
            jobs = [client.submit(IMAGE, [GradCAM()], target=unit) for unit in range(12)]
            for job in jobs:
                job.result()
            assert {job.status().attempts for job in jobs} == {1}
        worker.terminate()
        assert worker.wait(30) == 0
