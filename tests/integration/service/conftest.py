"""A real service of real processes: a server and workers on a Valkey of their own."""

from __future__ import annotations

import contextlib

import grpc
import pytest
from processes import durable_valkey, running

from convlens.client import Client
from convlens.client.stubs import Stubs


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory):
    """A Valkey that this module alone uses."""
    with durable_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def start_service(tmp_path_factory, own_valkey):
    """Makes services that end with the module."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            running(tmp_path_factory.mktemp("service"), own_valkey, **settings)
        )


@pytest.fixture(scope="module")
def null_target(start_service):
    """The target of a service that serves `null`."""
    service = start_service()
    service.worker("null=null")
    return service.server()[1]


@pytest.fixture
def client(null_target):
    """A client of it."""
    with Client(null_target, timeout=60) as client:
        yield client


@pytest.fixture
def stubs(null_target):
    """The bare stubs of it."""
    with grpc.insecure_channel(null_target) as channel:
        yield Stubs(channel)
