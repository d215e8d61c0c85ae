"""A gateway of the SDK's fake server."""

from __future__ import annotations

import pytest
from gateways import gateway

from convlens.client.testing import serve


@pytest.fixture(scope="module")
def fake():
    """The fake gRPC server, for what it received and for errors on demand."""
    return serve()


@pytest.fixture(scope="module")
def target(fake):
    """The address of the fake server."""
    with fake as address:
        yield address


@pytest.fixture(scope="module")
def http(target):
    """An HTTP client of a gateway."""
    with gateway(target) as client:
        yield client
