"""A real service of real processes: a server and workers on a Valkey of their own."""

from __future__ import annotations

import grpc
import pytest

from convlens.client import Client
from convlens.client.stubs import Stubs


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
