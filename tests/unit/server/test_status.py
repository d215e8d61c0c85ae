"""Errors of Redis map to UNAVAILABLE, which is worth a retry; a failing script maps to INTERNAL."""

from __future__ import annotations

import grpc
import pytest
import redis

from convlens.jobs.queue.scripts import ScriptFailed
from convlens.jobs.runtime.redis_client import RedisUnavailable
from convlens.server.status import to_status_error


@pytest.mark.parametrize("error", [redis.ConnectionError("gone"), redis.ResponseError("MISCONF cannot write")])
def test_a_redis_error_is_unavailable(error):
    assert to_status_error(error).code is grpc.StatusCode.UNAVAILABLE


def test_a_failing_script_is_internal_and_handled_like_an_unavailable_redis_by_background_loops():
    error = ScriptFailed("submit.lua: no such thing")
    assert to_status_error(error).code is grpc.StatusCode.INTERNAL
    assert isinstance(error, RedisUnavailable)
