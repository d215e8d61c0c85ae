"""Small calls at a steady rate against a small Redis, and a check that its memory does not grow."""

from __future__ import annotations

import asyncio
import collections
import itertools
import statistics
import tempfile
import time
import uuid
from pathlib import Path

import grpc
import numpy as np
import redis
from processes import durable_valkey, running

from convlens.client.stubs import Stubs
from convlens.v1 import spec_pb2, tensors, visualization_pb2

MIB = 1 << 20
TICK = 0.02
"""Seconds between two bursts of calls."""
MAX_IN_FLIGHT = 400
MIN_SHARE = 0.99
"""The share of the rate that has to be reached."""


class Calls:
    """Makes `rate` calls a second, each with a unique image."""

    def __init__(self, target: str, rate: float) -> None:
        self._target = target
        self._rate = rate
        self._numbers = itertools.count()
        self._pixels = uuid.uuid4().bytes
        self.seconds: list[float] = []
        """The duration of each successful call."""
        self.errors: collections.Counter[str] = collections.Counter()

    def _request(self) -> bytes:
        """A unique request: its number is in the image's pixels."""
        pixels = self._pixels + next(self._numbers).to_bytes(8, "little")
        image = spec_pb2.Image(pixels=tensors.encode(np.frombuffer(pixels, np.uint8).reshape(2, 4, 3)))
        maps = [spec_pb2.Visualization(grad_cam=spec_pb2.GradCam())]
        spec = spec_pb2.JobSpec(model="null", images=[image], visualizations=maps)
        request = visualization_pb2.VisualizeUnaryRequest(spec=spec, request_id=str(uuid.uuid4()))
        return request.SerializeToString()

    async def _call(self, stubs: Stubs, request: bytes) -> None:
        began = time.monotonic()
        try:
            await stubs.visualizations.VisualizeUnary(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            self.errors[f"{error.code().name}: {error.details()}"[:200]] += 1
        else:
            self.seconds.append(time.monotonic() - began)

    async def run(self, seconds: float) -> None:
        """Make calls for `seconds`. A lag of more than a second is not made up."""
        async with grpc.aio.insecure_channel(self._target) as channel:
            stubs = Stubs(channel)
            calls: set[asyncio.Task[None]] = set()
            began, due = time.monotonic(), 0.0
            while (now := time.monotonic() - began) < seconds:
                due = max(due, now - 1)
                while due <= now and len(calls) < MAX_IN_FLIGHT:
                    calls.add(task := asyncio.create_task(self._call(stubs, self._request())))
                    task.add_done_callback(calls.discard)
                    due += 1 / self._rate
                await asyncio.sleep(TICK)
            await asyncio.gather(*calls)


def run_at_rate(rate: float, maxmemory: str, minutes: float) -> bool:
    """Make calls with default TTLs and payloads in Redis, and print the use of Redis each minute.

    Returns True when every call succeeded, the rate was reached and the memory stayed flat.
    """
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        durable_valkey(Path(folder)) as valkey,
        redis.Redis(port=valkey.port) as client,
        running(Path(folder), valkey) as service,
    ):
        client.config_set("maxmemory", maxmemory)
        service.worker("null=null")
        calls = Calls(service.server()[1], rate)
        used: list[float] = []
        answered = 0
        print(f"{'minute':>8}{'calls/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'Redis MiB':>12}{'keys':>10}{'errors':>8}")
        for minute in itertools.count(1):
            length = 60 * min(1.0, minutes - minute + 1)
            if length <= 0:
                break
            asyncio.run(calls.run(length))
            seconds = sorted(calls.seconds)
            calls.seconds.clear()
            answered += len(seconds)
            used.append(client.info("memory")["used_memory"] / MIB)
            p50, p99 = (seconds[len(seconds) * percent // 100] if seconds else 0.0 for percent in (50, 99))
            print(
                f"{minute:>8}{len(seconds) / length:>10.1f}{1e3 * p50:>10.1f}{1e3 * p99:>10.1f}{used[-1]:>12.1f}"
                f"{client.dbsize():>10}{calls.errors.total():>8}",
                flush=True,
            )
        limit = int(client.config_get("maxmemory")["maxmemory"]) / MIB
    for error, count in calls.errors.most_common(5):
        print(f"{count} times {error}")
    half = used[len(used) // 2 :]
    is_flat = max(used) <= limit and statistics.mean(half[len(half) // 2 :]) <= 1.1 * half[0] + 1
    is_fast = answered >= MIN_SHARE * rate * 60 * minutes
    print(f"{answered} calls answered, {'the rate reached' if is_fast else 'the rate not reached'}")
    print(f"Redis' memory {'flat' if is_flat else 'grew'}: {half[0]:.1f} MiB at half time, {used[-1]:.1f} at the end")
    return is_flat and is_fast and not calls.errors
