"""Timeouts that callers give, in seconds: defaults and validation."""

from __future__ import annotations

import math
import numbers
from typing import Any, Final

from convlens.client.errors import InvalidArgument
from convlens.v1 import conventions

DEFAULT_TIMEOUT: Final = conventions.DEFAULT_TIMEOUT
"""Seconds that a call may take, queueing and retries included, by default."""
DEFAULT_CONNECT_TIMEOUT: Final = 10.0
"""Seconds after which a server that was never reached is given up, by default."""
UNLIMITED: Final = 1e8
"""Seconds, three years: longer timeouts count as no limit, since clocks and wire formats overflow beyond."""


def checked_timeout(timeout: Any, default: float, field: str = "timeout", *, or_zero: bool = False) -> float:
    """Return a timeout as seconds above 0, math.inf for no limit; `default` for None. With `or_zero` also 0, no wait.

    InvalidArgument of `field` for negative numbers, NaN, and anything that is no number.
    """
    if timeout is None:
        return default
    allowed = "seconds above 0, math.inf for no limit, None for the default" + ", 0 for the state by now" * or_zero
    if isinstance(timeout, bool) or not isinstance(timeout, numbers.Real):
        raise InvalidArgument(f"{field} is {timeout!r}; allowed: {allowed}", field=field)
    try:
        seconds = float(timeout)
    except OverflowError:  # an int of hundreds of digits
        seconds = math.inf if timeout > 0 else -math.inf  # type: ignore[operator]
    if math.isnan(seconds) or seconds < 0 or (seconds == 0 and not or_zero):
        raise InvalidArgument(f"{field} is {seconds:g}; allowed: {allowed}", field=field)
    return seconds if seconds < UNLIMITED else math.inf
