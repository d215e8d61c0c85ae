"""What calls leave in Redis: nothing after a while, and never so much that calls are refused."""

from __future__ import annotations

import asyncio

import pytest
import redis
from processes import until
from soak.rate import Calls

ANSWERED_TTL = 2
CALLS = 1000
RATE = 500
"""Calls a second that are asked for; the machine may be too busy for as many."""
BYTES = 3000
"""Of a record and a small result with all that finds them, payload included: see docs/reliability.md."""


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
    """Makes about so many small calls; how many were answered. All are."""
    calls = Calls(service.target, RATE)
    asyncio.run(calls.run(number / RATE))
    assert not calls.errors
    return len(calls.seconds)


def test_records_go_soon_after_their_callers_and_what_is_left_is_bounded(service, client, scale):
    make_calls(service, 100)
    until(lambda: not client.exists("convlens:jobs"))
    before = client.info("memory")["used_memory"]
    number = make_calls(service, CALLS * scale)
    held = client.info("memory")["used_memory"] - before
    alive = client.zcard("convlens:jobs")
    cached = client.zcard("convlens:cached")
    assert alive <= number
    assert held < BYTES * (alive + cached) + (4 << 20)
    until(lambda: not client.exists("convlens:jobs"))
    assert int(client.hget("convlens:usage", "cached_bytes") or 0) <= (1 << 20) / 8


def test_a_small_redis_carries_very_many_calls(service, client, scale):
    """They leave several times what it has room for, were it all kept."""
    make_calls(service, 100)
    memory = client.info("memory")
    most = memory["used_memory"] - memory["mem_not_counted_for_evict"] + (2 << 20) * min(scale, 4)
    client.config_set("maxmemory", int(most / 0.9))
    try:
        assert make_calls(service, 2 * CALLS * scale) > CALLS * scale / 2
    finally:
        client.config_set("maxmemory", 0)
