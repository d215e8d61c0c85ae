"""Equal jobs that are cancelled, given up or late all together: Redis' time is that of so many single ones."""

from __future__ import annotations

import pytest
from bulk import open_queue, submit
from processes import until
from resource_usage import BackgroundCaller

JOBS = 5000
"""Half of what a service takes at once."""
MICROSECONDS = 400
"""Of Redis' only thread a job: some sixty on a machine that is free. Where each end handed all others on, it was
nine thousand."""


@pytest.fixture(scope="module")
def service(start_service):
    service = start_service(max_jobs=2 * JOBS)
    service.worker("null=null")
    service.target = service.server()[1]
    return service


@pytest.mark.parametrize("end", ["cancel", "leave", "expire"])
def test_each_costs_redis_the_same_and_others_hardly_wait(service, end):
    queue = open_queue(service.url)
    timeout = 3.0 if end == "expire" else 600.0
    records = submit(queue, JOBS, fingerprint=end, images=[(end, b"image")], timeout=timeout)
    with BackgroundCaller(service.target) as neighbour:
        before = queue.redis.info("commandstats")["cmdstat_evalsha"]["usec"]
        match end:
            case "cancel":
                for record in records:
                    queue.cancel(record.id)
            case "leave":
                for first in range(0, JOBS, 64):
                    queue.leave([(it.id, it.waiter) for it in records[first : first + 64]])
        until(lambda: not queue.redis.exists("convlens:deadlines"))
        took = queue.redis.info("commandstats")["cmdstat_evalsha"]["usec"] - before
    assert all(queue.get(it.id).state.final for it in records[::100])
    assert took / JOBS < MICROSECONDS
    assert neighbour.slowest < 2  # a second, where the machine is not busy with other tests
    assert not neighbour.errors
