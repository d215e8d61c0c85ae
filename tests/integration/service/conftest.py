"""A real service: a server and a worker as processes, on their own Valkey."""

from __future__ import annotations

import grpc
import pytest

from convlens.client import Client
from convlens.client.stubs import Stubs


@pytest.fixture(scope="module")
def null_target(start_service):
    """The target of a service with the model `null`."""
    service = start_service()
    service.worker("null=null")
    return service.server()[1]


@pytest.fixture
def client(null_target):
    """A client of the service at `null_target`."""
    with Client(null_target, timeout=60) as client:
        yield client


@pytest.fixture
def stubs(null_target):
    """The gRPC stubs of the service at `null_target`."""
    with grpc.insecure_channel(null_target) as channel:
        yield Stubs(channel)
