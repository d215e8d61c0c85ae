"""What abusive callers may ask for: the load of the short form times --abuse-scale."""

from __future__ import annotations

import pytest


@pytest.fixture
def scale(request) -> int:
    """1 in `make test`; `make abuse` sends more."""
    return request.config.getoption("--abuse-scale")


@pytest.fixture(scope="module")
def service(start_service):
    """A service with a worker of `null`; a module that needs another one has its own."""
    service = start_service()
    service.worker("null=null")
    return service
