"""Fixtures of all tests: a real Valkey and services of real processes."""

from __future__ import annotations

import contextlib

import pytest
import redis
from processes import durable_valkey, running


def pytest_addoption(parser):
    parser.addoption("--abuse-scale", type=int, default=1, help="factor of the load that tests/abuse sends")


@pytest.fixture(scope="session")
def valkey(tmp_path_factory):
    """A Valkey of this test run, on a free port of the loopback interface."""
    with durable_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_url(valkey) -> str:
    """The URL of the Valkey of this test run, emptied."""
    url = f"redis://127.0.0.1:{valkey.port}/0"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory):
    """A Valkey that no other module uses."""
    with durable_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def start_service(tmp_path_factory, own_valkey):
    """A function that creates a service from settings; its processes end with the module."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            running(tmp_path_factory.mktemp("service"), own_valkey, **settings)
        )
