"""The watchdog ends a worker that hangs and does not end one that is only busy."""

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
"""The exit status of a process that faulthandler ends."""


@pytest.mark.parametrize(
    ("target", "status"), [(hanging_worker.HANGING_TARGET, HUNG), (hanging_worker.GIL_TARGET, INTERPRETER)]
)
def test_a_hung_device_ends_its_worker_and_another_computes_its_jobs(tmp_path, valkey, monkeypatch, target, status):
    monkeypatch.setenv("PYTHONPATH", str(Path(hanging_worker.__file__).parent), prepend=os.pathsep)
    with running(tmp_path, valkey, lease=1) as service:
        worker, _ = service.start("hanging_worker", *NULL, "--device-timeout", "1", "--max-batch-size", "1")
        _, address = service.server()
        with Client(address, timeout=60) as client:
            until(client.models)
            hanging = client.submit(IMAGE, [GradCAM()], target=target)
            until(lambda: hanging.status().state == job_pb2.JOB_STATE_RUNNING)
            queued = [client.submit(IMAGE, [GradCAM()], target=unit) for unit in range(3)]
            assert worker.wait(30) == status
            service.worker("null=null")
            for job in (hanging, *queued):
                job.result()
            assert hanging.status().attempts == 2
            if status == HUNG:  # the worker could still release the jobs that it had not started
                assert [job.status().attempts for job in queued] == [1, 1, 1]


def test_a_busy_worker_is_not_taken_for_a_hung_one(tmp_path, valkey):
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
