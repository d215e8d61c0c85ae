"""Shifts the wall clock of every process that has this folder on its PYTHONPATH by the seconds in $CHAOS_CLOCK.

Processes read that file at each look at the clock.
"""

from __future__ import annotations

import os
import time
import types

from grpc._cython import cygrpc

_now, _now_ns = time.time, time.time_ns


def _offset() -> float:
    with open(os.environ["CHAOS_CLOCK"]) as file:  # noqa: PTH123 - pathlib may itself read the clock
        return float(file.read() or 0)


# gRPC's core reads the system's clock, so its Python side, which computes deadlines with both, must do so as well
cygrpc.time = types.SimpleNamespace(time=_now)
time.time = lambda: _now() + _offset()
time.time_ns = lambda: _now_ns() + int(_offset() * 1e9)
