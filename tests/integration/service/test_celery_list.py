"""The length of a model's Celery list is the number of its queued jobs, while workers claim them."""

from __future__ import annotations

import numpy as np
from processes import running, until

from convlens.client import Client, Saliency
from convlens.jobs.runtime.redis_client import connect

IMAGE = np.zeros((224, 224, 3), np.uint8)
CONSUMERS = 2


def test_the_length_of_the_list_is_the_number_of_queued_jobs(tmp_path, own_valkey):
    redis = connect(f"redis://127.0.0.1:{own_valkey.port}/0")
    with running(tmp_path, own_valkey) as service:
        flags = ("--max-batch-size", "1", "--consumers", str(CONSUMERS))
        service.worker("null=null,device_ms=100+0", flags=flags)
        _, target = service.server()
        with Client(target, timeout=60) as client:
            until(client.models)
            jobs = [client.submit(IMAGE, [Saliency()], target=unit) for unit in range(30)]
            for queued in iter(lambda: sum(map(redis.zcard, redis.scan_iter("convlens:queued:*"))), 0):
                assert abs(redis.llen("convlens.null") - queued) <= 2 * CONSUMERS + 2  # jobs that are being claimed
            for job in jobs:
                job.result()
            until(lambda: not redis.exists("convlens.null"))
