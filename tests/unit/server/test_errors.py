"""What Redis cannot do for a while is UNAVAILABLE and worth another try; a mistake of ours is INTERNAL."""

from __future__ import annotations

import grpc
import pytest
import redis

from convlens.jobs.queue.scripts import ScriptFailed
from convlens.jobs.runtime.redis_client import LedgerUnavailable
from convlens.server.status import refusal_of


@pytest.mark.parametrize("error", [redis.ConnectionError("gone"), redis.ResponseError("MISCONF cannot write")])
def test_a_redis_that_cannot_is_unavailable(error):
    assert refusal_of(error).code is grpc.StatusCode.UNAVAILABLE


def test_a_script_that_fails_is_internal_yet_ends_no_thread_that_looks_after_the_ledger():
    error = ScriptFailed("submit.lua: no such thing")
    assert refusal_of(error).code is grpc.StatusCode.INTERNAL
    assert isinstance(error, LedgerUnavailable)
