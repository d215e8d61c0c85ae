"""Stable ids of test parameters."""

from __future__ import annotations

import re


def stable(value: object) -> str:
    """The repr of a parameter without memory addresses, so that parallel test processes agree on its id."""

    return re.sub(r" at 0x\w+", "", repr(value))
