"""The limit of file descriptors: each connection and open file takes one."""

from __future__ import annotations

import resource
from typing import Final

DEFAULT_LIMIT: Final = 1 << 20
"""The soft limit where there is no hard one."""


def raise_limit() -> None:
    """Raise the soft limit, often 1,024, to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = DEFAULT_LIMIT if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
