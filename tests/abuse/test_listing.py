"""Concurrent listings of very many jobs do not delay other callers."""

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


def test_listings_with_few_matches_do_not_delay_other_callers(service, scale):
    """The only match is the oldest job, so each listing scans all of them."""

    def matches(_) -> list[str]:
        with Client(service.target, timeout=120) as client:
            return [job.id for job in client.jobs("cancelled")]

    with BackgroundCaller(service.target) as ordinary_caller, ThreadPoolExecutor(CALLERS) as callers:
        listings = list(callers.map(matches, range(CALLERS * scale)))
    assert listings == [[service.cancelled]] * CALLERS * scale
    assert ordinary_caller.slowest < 2  # 1 s on an idle machine
    assert not ordinary_caller.errors


def test_full_pages_do_not_delay_other_callers(service, scale):
    def count(_) -> int:
        with Client(service.target, timeout=120) as client:
            return sum(1 for _, _ in zip(client.jobs("queued"), range(1000), strict=False))

    with BackgroundCaller(service.target) as ordinary_caller, ThreadPoolExecutor(CALLERS) as callers:
        assert list(callers.map(count, range(CALLERS * scale // 4))) == [1000] * (CALLERS * scale // 4)
    assert ordinary_caller.slowest < 2
    assert not ordinary_caller.errors
