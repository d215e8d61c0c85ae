"""Thousands of equal jobs that end together cost Redis no more time each than single jobs."""

from __future__ import annotations

import pytest
from bulk import open_queue, submit
from processes import until
from resource_usage import BackgroundCaller

JOBS = 5000
"""Half of the jobs that the service admits."""
MICROSECONDS = 400
"""Time of Redis' thread per job: about 60 on an idle machine, and 9000 if each end moved all remaining jobs."""


@pytest.fixture(scope="module")
def service(start_service):
    service = start_service(max_jobs=2 * JOBS)
    service.worker("null=null")
    service.target = service.server()[1]
    return service


@pytest.mark.parametrize("end", ["cancel", "leave", "expire"])
def test_the_end_of_many_equal_jobs_does_not_delay_other_callers(service, end):
    queue = open_queue(service.url)
    timeout = 3.0 if end == "expire" else 600.0
    records = submit(queue, JOBS, fingerprint=end, images=[(end, b"image")], timeout=timeout)
    with BackgroundCaller(service.target) as ordinary_caller:
        before = queue.redis.info("commandstats")["cmdstat_evalsha"]["usec"]
        match end:
            case "cancel":
                for record in records:
                    queue.cancel(record.id)
            case "leave":
                for first in range(0, JOBS, 64):
                    queue.leave([(record.id, record.waiter) for record in records[first : first + 64]])
        until(lambda: not queue.redis.exists("convlens:deadlines"))
        microseconds = queue.redis.info("commandstats")["cmdstat_evalsha"]["usec"] - before
    assert all(queue.get(record.id).state.final for record in records[::100])
    assert microseconds / JOBS < MICROSECONDS
    assert ordinary_caller.slowest < 2  # 1 s on an idle machine
    assert not ordinary_caller.errors
