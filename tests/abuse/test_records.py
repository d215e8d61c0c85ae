"""Records and results of finished calls are removed from Redis before they could cause a refusal."""

from __future__ import annotations

import asyncio

import pytest
import redis
from processes import until
from soak.rate import Calls

ANSWERED_TTL = 2
CALLS = 1000
RATE = 500
"""Intended calls a second; a busy machine makes fewer."""
BYTES = 3000
"""Upper bound of a record, its index entries and a small result with payload: see docs/reliability.md."""


@pytest.fixture(scope="module")
def service(start_service):
    service = start_service(answered_ttl=ANSWERED_TTL, max_stored_bytes=1 << 20)
    service.worker("null=null")
    service.target = service.server()[1]
    return service


@pytest.fixture(scope="module")
def client(service):
    with redis.Redis.from_url(service.url) as client:
        yield client


def make_calls(service, number) -> int:
    """Make about `number` small calls, all of which must succeed, and return how many there were."""
    calls = Calls(service.target, RATE)
    asyncio.run(calls.run(number / RATE))
    assert not calls.errors
    return len(calls.seconds)


def test_records_are_deleted_after_the_answered_ttl_and_their_memory_is_bounded(service, client, scale):
    make_calls(service, 100)
    until(lambda: not client.exists("convlens:jobs"))
    before = client.info("memory")["used_memory"]
    number = make_calls(service, CALLS * scale)
    growth = client.info("memory")["used_memory"] - before
    records = client.zcard("convlens:jobs")
    cached = client.zcard("convlens:cached")
    assert records <= number
    assert growth < BYTES * (records + cached) + (4 << 20)
    until(lambda: not client.exists("convlens:jobs"))
    assert int(client.hget("convlens:usage", "cached_bytes") or 0) <= (1 << 20) / 8


def test_a_small_redis_serves_more_calls_than_it_could_store(service, client, scale):
    make_calls(service, 100)
    memory = client.info("memory")
    limit = memory["used_memory"] - memory["mem_not_counted_for_evict"] + (2 << 20) * min(scale, 4)
    client.config_set("maxmemory", int(limit / 0.9))
    try:
        assert make_calls(service, 2 * CALLS * scale) > CALLS * scale / 2
    finally:
        client.config_set("maxmemory", 0)
