"""On a process's PYTHONPATH: its wall clock is off by as many seconds as the file $CHAOS_CLOCK says just now."""

from __future__ import annotations

import os
import time
import types

from grpc._cython import cygrpc

_now, _now_ns = time.time, time.time_ns


def _offset() -> float:
    with open(os.environ["CHAOS_CLOCK"]) as file:  # noqa: PTH123 - pathlib may itself ask for the time
        return float(file.read() or 0)


# gRPC's core asks the system itself, and its Python side reckons deadlines with both: on a machine they are one clock
cygrpc.time = types.SimpleNamespace(time=_now)
time.time = lambda: _now() + _offset()
time.time_ns = lambda: _now_ns() + int(_offset() * 1e9)
