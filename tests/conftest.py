"""What every test may ask for: a real Valkey, empty at the beginning of each test that uses it."""

from __future__ import annotations

import contextlib

import pytest
import redis
from processes import durable_valkey, running


def pytest_addoption(parser):
    parser.addoption(
        "--abuse-scale", type=int, default=1, help="how many times the short form's load tests/abuse sends"
    )


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


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory):
    """A Valkey that this module alone uses."""
    with durable_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def start_service(tmp_path_factory, own_valkey):
    """Makes services of real processes that end with the module."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            running(tmp_path_factory.mktemp("service"), own_valkey, **settings)
        )
