"""Listings of very many jobs, many at once: nobody else waits for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from bulk import open_queue, submit
from resource_usage import BackgroundCaller

from convlens.client import Client

JOBS = 10_000
CALLERS = 32


@pytest.fixture(scope="module")
def service(start_service):
    service = start_service(max_jobs=2 * JOBS)
    service.worker("null=null")
    service.target = service.server()[1]
    queue = open_queue(service.url)
    service.cancelled = submit(queue, 1)[0].id
    queue.cancel(service.cancelled)
    submit(queue, JOBS - 1, keep=True)
    return service


def test_many_listings_that_find_hardly_anything_hold_up_nobody(service, scale):
    """The one job that is found is the oldest, so each listing looks at all of them."""

    def listed(_) -> list[str]:
        with Client(service.target, timeout=120) as client:
            return [job.id for job in client.jobs("cancelled")]

    with BackgroundCaller(service.target) as neighbour, ThreadPoolExecutor(CALLERS) as callers:
        found = list(callers.map(listed, range(CALLERS * scale)))
    assert found == [[service.cancelled]] * CALLERS * scale
    assert neighbour.slowest < 2  # a second, where the machine is not busy with other tests
    assert not neighbour.errors


def test_many_full_pages_hold_up_nobody(service, scale):
    def listed(_) -> int:
        with Client(service.target, timeout=120) as client:
            return sum(1 for _, _ in zip(client.jobs("queued"), range(1000), strict=False))

    with BackgroundCaller(service.target) as neighbour, ThreadPoolExecutor(CALLERS) as callers:
        assert list(callers.map(listed, range(CALLERS * scale // 4))) == [1000] * (CALLERS * scale // 4)
    assert neighbour.slowest < 2
    assert not neighbour.errors
