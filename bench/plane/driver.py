"""The main loop of a client process: print ready once the service responds, then run workloads, a line of JSON each.

Runs in the environment of the peer whose client it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Final

from bench.plane.load import Report, Workload

PATIENCE: Final = 90.0
"""Seconds for a service to start."""

RunWorkload = Callable[[Workload], Awaitable[Report]]


async def serve(run: RunWorkload) -> None:
    """Run workloads from stdin until it ends. The output of libraries goes to stderr."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        await _wait_until_responding(run)
        print(json.dumps("ready"), file=out, flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            report = await run(Workload(**json.loads(line)))
            print(json.dumps(asdict(report)), file=out, flush=True)


async def _wait_until_responding(run: RunWorkload) -> None:
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            report = await run(Workload(seconds=0.01))
            failed = report.error
        except Exception as error:  # noqa: BLE001 - a service that is not up yet
            failed = f"{type(error).__name__}: {error}"
        if not failed:
            return
        if time.monotonic() > ends:
            sys.exit(f"the service did not answer in {PATIENCE:g} s: {failed}")
        await asyncio.sleep(0.3)
