"""Files and connections that a process may have open."""

from __future__ import annotations

import resource
from typing import Final

MOST: Final = 1 << 20
"""Where there is no hard limit."""


def allow_most() -> None:
    """Raises the soft limit, often 1,024, to the hard one: each connection is a descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = MOST if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
