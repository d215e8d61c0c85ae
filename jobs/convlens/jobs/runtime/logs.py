"""Logs: one line an event on stderr, as key=value pairs that a machine can read, too."""

from __future__ import annotations

import logging
import sys
import time


def configure(level: str) -> None:
    """Sends the log to stderr from `level` on."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="time=%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    logging.Formatter.converter = time.gmtime
