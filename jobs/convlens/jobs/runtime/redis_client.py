"""The one way to a Redis client: time limits and retries, so that nothing waits for ever on a half-open socket."""

from __future__ import annotations

import math
import time
from typing import Final

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import PythonRespSerializer
from redis.retry import Retry

KEY_PREFIX: Final = "convlens:"
"""What every key of the service begins with."""
LedgerUnavailable = redis.RedisError
"""What any call to the ledger may raise while Redis cannot be reached; callers need no Redis of their own for it."""

_PASSING: Final = ("MISCONF", "READONLY", "LOADING", "BUSY", "NOREPLICAS", "MASTERDOWN")
"""What Redis answers for a while: it cannot write, is not the master, is starting."""


def is_unavailable(error: BaseException) -> bool:
    """True when Redis cannot be reached, or refuses for a while what it would do at another time."""
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | redis.OutOfMemoryError | redis.ReadOnlyError):
        return True
    return isinstance(error, redis.ResponseError) and str(error).startswith(_PASSING)


class RedisClock:
    """Seconds since the epoch as Redis counts them: asked once a minute, counted on by a clock that never jumps."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._ahead = 0.0
        self._until = -math.inf

    def __call__(self) -> float:
        """Now. LedgerUnavailable when Redis cannot be asked."""
        now = time.monotonic()
        if now >= self._until:
            seconds, micros = self._redis.time()
            self._ahead = seconds + micros / 1e6 - now
            self._until = now + 60
        return now + self._ahead


_COPIED: Final = 6000
"""Bytes of a value that is put together with what is around it; redis-py's own number."""
FRONT_SECONDS: Final = 2.0
"""What a front waits for Redis, since a caller waits with it, and asks again. It never waits in a blocking command."""


def connect(url: str, seconds: float = 5.0) -> redis.Redis:
    """A thread-safe client of `url`: so many seconds a command, three quick retries. It connects at the first command.

    A retry may send a command twice, so every script of the ledger is safe to replay.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=seconds,
        socket_connect_timeout=2.0,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), 3),
        retry_on_error=[redis.ConnectionError, redis.TimeoutError],
    )


def for_large_values(client: redis.Redis) -> redis.Redis:
    """A client of the same Redis that sends large values uncopied, where hiredis' packer copies each of them.

    That one is better for all else.
    """
    pool = client.connection_pool
    packer = PythonRespSerializer(_COPIED, client.get_encoder().encode)
    return redis.Redis(
        connection_pool=redis.ConnectionPool(
            connection_class=pool.connection_class, **pool.connection_kwargs, command_packer=packer
        )
    )
