"""Latency of one caller while others keep the device busy.

The simulated device takes 150 ms for each batch, whatever is in it; nothing else takes nearly as long. A running batch
is not interrupted, so a call waits for half a batch on average, for one at most, and then for its own batch. Without
other callers it waits only for its own. Therefore the median grows to 1.5 times and at most twice if, and only if, the
image is part of the very next batch.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np
import pytest
from credentials import new_token
from processes import until

from convlens.client import Client, Occlusion, Saliency
from convlens.v1.job_pb2 import JOB_STATE_QUEUED

BATCH_SECONDS = 0.15
CALLS = 11
RANDOM = np.random.default_rng(17)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    return {tenant: new_token(file, tenant, "submit", "read") for tenant in ("flood", "modest")} | {"file": file}


@pytest.fixture(scope="module")
def target(start_service, tokens):
    service = start_service(tokens=tokens["file"])
    service.worker(f"null=null,device_ms={BATCH_SECONDS * 1e3:g}+0")
    return service.server()[1]


@pytest.fixture
def client_of(target, tokens):
    """A function that creates a client of a tenant."""
    with contextlib.ExitStack() as stack:
        yield lambda tenant: stack.enter_context(Client(target, token=tokens[tenant], timeout=120))


def small():
    return RANDOM.integers(0, 256, (16, 16, 3), np.uint8)


def latency(client, calls=CALLS, **options):
    """The median duration in seconds of calls that start at random moments of a batch."""
    rng = random.Random(3)
    seconds = []
    for _ in range(calls):
        time.sleep(rng.uniform(0, BATCH_SECONDS))
        start = time.monotonic()
        client.visualize(small(), [Saliency()], model="null", fresh=True, **options)
        seconds.append(time.monotonic() - start)
    return median(seconds)


class Flood:
    """A load of many more images than the device can process."""

    def __init__(self, client, **options):
        self._client = client
        self._options = {"model": "null", "fresh": True} | options
        self._stop = threading.Event()
        self.completed = 0
        """Images with a result."""

    def large_jobs(self):
        """Run jobs of 32 images, of four batches each."""
        for _ in self._client.map(self._images(), [Saliency()], **self._options):
            self.completed += 1

    def many_callers(self):
        """Run forty callers with one image at a time."""

        def calls():
            for image in self._images():
                self._client.visualize(image, [Saliency()], **self._options)
                self.completed += 1

        with ThreadPoolExecutor(40) as pool:
            for call in [pool.submit(calls) for _ in range(40)]:
                call.result()

    @contextlib.contextmanager
    def running(self, kind):
        """Run one of the two kinds of load in the body of a `with`."""
        thread = threading.Thread(target=kind, args=[self])
        thread.start()
        try:
            until(lambda: self.completed > 64, seconds=20)
            yield
        finally:
            self._stop.set()
            thread.join()

    def _images(self):
        while not self._stop.is_set():
            yield small()


@pytest.mark.parametrize("kind", [Flood.large_jobs, Flood.many_callers])
def test_the_flood_of_one_tenant_at_most_doubles_the_latency_of_another(client_of, kind):
    modest, flood = client_of("modest"), Flood(client_of("flood"))
    alone = latency(modest)
    with flood.running(kind):
        before = flood.completed
        flooded = latency(modest)
        assert flood.completed - before >= 4 * CALLS  # the device was busy with the flood
    assert alone >= BATCH_SECONDS
    assert flooded <= 2 * alone


def test_calls_of_high_priority_overtake_low_priority_jobs_of_the_same_caller(client_of):
    client = client_of("modest")
    alone = latency(client, priority="high")
    with Flood(client, priority="low").running(Flood.large_jobs):
        assert latency(client, priority="high") <= 2 * alone


def test_low_priority_is_not_starved_by_a_flood_of_high(client_of):
    """Its weight is a sixteenth: one or two jobs of high priority, of four batches each, precede each of its images."""
    client = client_of("modest")
    with Flood(client, priority="high").running(Flood.large_jobs):
        assert latency(client, calls=5, priority="low") <= 24 * BATCH_SECONDS


def test_multi_pass_jobs_at_most_double_the_latency_of_single_pass_jobs(client_of):
    """Twelve jobs of 26 batches each: few run at a time, and each batch prefers single-pass jobs."""
    client = client_of("modest")
    alone = latency(client)
    multi_pass = [client.submit(small(), [Occlusion(16, 16)], model="null", timeout=120) for _ in range(12)]

    def started():
        """The number of jobs that are no longer queued."""
        return sum(job.status().state != JOB_STATE_QUEUED for job in multi_pass)

    until(lambda: multi_pass[1].status().progress > 0)
    assert started() <= 4
    assert latency(client) <= 2 * alone
    before = started()
    multi_pass[1].cancel()
    until(lambda: started() > before, seconds=2)  # the next one starts at once
    for job in multi_pass:
        job.cancel()
