"""Whose turn it is, end to end: what one caller waits while others have very much to do.

The device is a pretended one that takes 150 ms a batch, whatever is in it; nothing else takes nearly as long. A batch
under way is not interrupted: who comes at any moment waits for half of one in the mean and one at the most, and then
for his own. Alone he waits for his own only. So he waits 1.5 times as long in the median and twice as long at the most,
if and only if his image rides in the very next batch.
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
def of(target, tokens):
    with contextlib.ExitStack() as stack:
        yield lambda tenant: stack.enter_context(Client(target, token=tokens[tenant], timeout=120))


def small():
    return RANDOM.integers(0, 256, (16, 16, 3), np.uint8)


def latency(client, calls=CALLS, **options):
    """The median of calls that come at any moment of a batch."""
    moments = random.Random(3)
    took = []
    for _ in range(calls):
        time.sleep(moments.uniform(0, BATCH_SECONDS))  # the caller thinks
        began = time.monotonic()
        client.visualize(small(), [Saliency()], model="null", fresh=True, **options)
        took.append(time.monotonic() - began)
    return median(took)


class Flood:
    """Much more than the device can do, for the length of a `with`."""

    def __init__(self, client, **options):
        self._client = client
        self._options = {"model": "null", "fresh": True} | options
        self._stop = threading.Event()
        self.came = 0
        """Images that were answered."""

    def packs(self):
        """Jobs of 32 images, which are four batches each."""
        for _ in self._client.map(self._images(), [Saliency()], **self._options):
            self.came += 1

    def singles(self):
        """Forty callers of an image each."""

        def calls():
            for image in self._images():
                self._client.visualize(image, [Saliency()], **self._options)
                self.came += 1

        with ThreadPoolExecutor(40) as pool:
            for call in [pool.submit(calls) for _ in range(40)]:
                call.result()

    @contextlib.contextmanager
    def under_way(self, how):
        thread = threading.Thread(target=how, args=[self])
        thread.start()
        try:
            until(lambda: self.came > 64, seconds=20)
            yield
        finally:
            self._stop.set()
            thread.join()

    def _images(self):
        while not self._stop.is_set():
            yield small()


@pytest.mark.parametrize("how", [Flood.packs, Flood.singles])
def test_one_tenants_flood_leaves_anothers_latency_within_twice(of, how):
    modest, flood = of("modest"), Flood(of("flood"))
    alone = latency(modest)
    with flood.under_way(how):
        before = flood.came
        flooded = latency(modest)
        assert flood.came - before >= 4 * CALLS  # it was one
    assert alone >= BATCH_SECONDS
    assert flooded <= 2 * alone


def test_interactive_calls_come_before_the_same_callers_bulk(of):
    client = of("modest")
    alone = latency(client, priority="high")
    with Flood(client, priority="low").under_way(Flood.packs):
        assert latency(client, priority="high") <= 2 * alone


def test_low_priority_is_not_starved_by_a_flood_of_high(of):
    """Its weight is a sixteenth: a pack or two of high priority, of four batches each, go before each of its images."""
    client = of("modest")
    with Flood(client, priority="high").under_way(Flood.packs):
        assert latency(client, calls=5, priority="low") <= 24 * BATCH_SECONDS


def test_jobs_of_many_passes_leave_single_ones_their_turn(of):
    """A dozen of them, of 26 batches each: a hand each at a time, and their passes give way in each batch."""
    client = of("modest")
    alone = latency(client)
    many = [client.submit(small(), [Occlusion(16, 16)], model="null", timeout=120) for _ in range(12)]

    def begun():
        """How many are no longer queued; they are begun in their order."""
        return sum(job.status().state != JOB_STATE_QUEUED for job in many)

    until(lambda: many[1].status().progress > 0)
    assert begun() <= 4
    assert latency(client) <= 2 * alone
    running = begun()
    many[1].cancel()
    until(lambda: begun() > running, seconds=2)  # its place is taken at once
    for job in many:
        job.cancel()
