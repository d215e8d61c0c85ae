"""Fixtures of the abuse tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def scale(request) -> int:
    """Factor of the load: 1 in `make test`, more in `make abuse`."""
    return request.config.getoption("--abuse-scale")


@pytest.fixture(scope="module")
def service(start_service):
    """A service with a worker of the model `null`."""
    service = start_service()
    service.worker("null=null")
    return service
