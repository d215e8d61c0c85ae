"""The model cache reads Redis once for all concurrent readers, and again after a failure."""

from __future__ import annotations

import asyncio

from all_queue import Queue

from convlens.jobs.runtime.redis_client import RedisUnavailable, connect
from convlens.server.model_cache import ModelCache
from convlens.server.settings import ServerSettings


def cache_at(url: str) -> ModelCache:
    settings = ServerSettings(redis_url=url)
    return ModelCache(Queue(connect(url, 1.0), settings, settings.bounds))


async def test_concurrent_readers_share_one_read(redis_url):
    cache = cache_at(redis_url)
    first, *others = await asyncio.gather(*(cache.get() for _ in range(20)))
    assert all(live is first for live in others)


async def test_a_reader_that_goes_away_does_not_cancel_the_read_of_the_others(redis_url):
    cache = cache_at(redis_url)
    first, second = (asyncio.create_task(cache.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).models == {}


async def test_a_failure_reaches_every_reader_and_is_not_cached():
    cache = cache_at("redis://127.0.0.1:1/0")
    for _ in range(2):
        errors = await asyncio.gather(*(cache.get() for _ in range(3)), return_exceptions=True)
        assert all(isinstance(error, RedisUnavailable) for error in errors)
