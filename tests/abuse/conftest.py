"""What abusive callers may ask for: the load of the short form times --abuse-scale."""

from __future__ import annotations

import pytest


@pytest.fixture
def scale(request) -> int:
    """1 in `make test`; `make abuse` sends more."""
    return request.config.getoption("--abuse-scale")
