"""A worker with running jobs while a suspect waits until the worker is idle."""

from __future__ import annotations

import time

import numpy as np
from processes import running, until

from convlens.client import Client, JobState, Saliency
from convlens.jobs.runtime.redis_client import connect

IMAGE = np.zeros((224, 224, 3), np.uint8)


def test_a_worker_with_a_suspect_waiting_finishes_its_jobs_without_claiming_in_a_loop(tmp_path, own_valkey):
    redis = connect(f"redis://127.0.0.1:{own_valkey.port}/0")
    with running(tmp_path, own_valkey, lease=1) as service:
        killed = service.worker("null=null,device_ms=60000+0", flags=("--consumers", "1"))
        _, target = service.server()
        with Client(target, timeout=60) as client:
            until(client.models)
            suspect = client.submit(IMAGE, [Saliency()], target=1)
            until(lambda: suspect.status().state == JobState.RUNNING)
            first = client.submit(IMAGE, [Saliency()], target=2, priority="high")
            killed.kill()
            until(lambda: suspect.status().state == JobState.QUEUED)
            service.worker("null=null,device_ms=3000+0")
            until(lambda: first.status().state == JobState.RUNNING)
            scripts = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
            time.sleep(1)
            assert first.status().state == JobState.RUNNING
            assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] - scripts < 100  # by all processes
            first.result()
            assert suspect.result()["saliency"].shape == (1, 224, 224)
