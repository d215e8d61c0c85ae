"""Celery's messages are few: hands that are awake take the jobs of a busy time."""

from __future__ import annotations

import numpy as np

from convlens.jobs.queue.hands import HANDS
from convlens.jobs.runtime.redis_client import connect


def test_a_busy_time_takes_few_messages(client, own_valkey):
    def messages():
        return redis.info("commandstats").get("cmdstat_lpush", {}).get("calls", 0)

    redis = connect(f"redis://127.0.0.1:{own_valkey.port}/0")
    before = messages()
    for _ in range(60):
        client.saliency(np.zeros((224, 224, 3), np.uint8), fresh=True)
    assert 1 <= messages() - before <= 5 * HANDS
