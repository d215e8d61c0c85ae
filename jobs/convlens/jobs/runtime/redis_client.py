"""Redis clients, all with the same time limits and retries, so that nothing waits for ever on a half-open socket."""

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
RedisUnavailable = redis.RedisError
"""What any call to the queue may raise while Redis is unavailable; callers need not import redis for it."""

_TEMPORARY: Final = ("MISCONF", "READONLY", "LOADING", "BUSY", "NOREPLICAS", "MASTERDOWN")
"""Errors of a Redis that cannot write now, is not the master, or is starting."""


def is_unavailable(error: BaseException) -> bool:
    """Return whether Redis cannot be reached, or refuses temporarily."""
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | redis.OutOfMemoryError | redis.ReadOnlyError):
        return True
    return isinstance(error, redis.ResponseError) and str(error).startswith(_TEMPORARY)


class RedisClock:
    """Redis' time, read once a minute and extrapolated by the monotonic clock."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._offset = 0.0
        self._valid_until = -math.inf

    def __call__(self) -> float:
        """Return seconds since the epoch. Raises RedisUnavailable."""
        now = time.monotonic()
        if now >= self._valid_until:
            seconds, micros = self._redis.time()
            self._offset = seconds + micros / 1e6 - now
            self._valid_until = now + 60
        return now + self._offset


_COPIED_BYTES: Final = 6000
"""Values up to this size are copied into one buffer with the command; redis-py's own default."""
SERVER_TIMEOUT: Final = 2.0
"""Seconds for a server's commands, since a caller waits for each. A server uses no blocking commands."""


def connect(url: str, timeout: float = 5.0) -> redis.Redis:
    """Return a thread-safe client of `url`: `timeout` seconds a command, three retries. The first command connects.

    A retry may send a command twice, so every script of the queue is idempotent.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=2.0,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), 3),
        retry_on_error=[redis.ConnectionError, redis.TimeoutError],
    )


def for_large_values(client: redis.Redis) -> redis.Redis:
    """Return a client of the same Redis that sends large values uncopied; hiredis' packer, faster otherwise, copies."""
    pool = client.connection_pool
    packer = PythonRespSerializer(_COPIED_BYTES, client.get_encoder().encode)
    return redis.Redis(
        connection_pool=redis.ConnectionPool(
            connection_class=pool.connection_class, **pool.connection_kwargs, command_packer=packer
        )
    )
