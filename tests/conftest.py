"""What every test may ask for: a real Valkey, empty at the beginning of each test that uses it."""

from __future__ import annotations

import pytest
import redis
from processes import durable_valkey


@pytest.fixture(scope="session")
def valkey(tmp_path_factory):
    """A Valkey of this test run, on a free port of the loopback interface, with AOF and noeviction."""
    with durable_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_url(valkey) -> str:
    """The URL of an empty Valkey."""
    url = f"redis://127.0.0.1:{valkey.port}/0"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url
