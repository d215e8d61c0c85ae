"""Logs on stderr: one line for each event, with key=value pairs."""

from __future__ import annotations

import logging
import sys
import time


def configure(level: str) -> None:
    """Log to stderr from `level` on, with UTC timestamps."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="time=%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    logging.Formatter.converter = time.gmtime
