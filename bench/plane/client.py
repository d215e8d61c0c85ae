"""The client process of Convlens, which uses the SDK's public surface alone: `python -m bench.plane.client TARGET`."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from itertools import islice
from time import perf_counter
from typing import Any, Final

import numpy as np
from PIL import Image

from bench.plane import load, work
from bench.plane.driver import serve
from bench.plane.load import Report, Workload
from convlens.client import Activations, AsyncClient, Client, Output, Result, Saliency

RAW: Final = (Saliency(),)
SMALL: Final = (Saliency(output=Output(dtype="uint8")),)
EIGHT: Final = 8
LARGE: Final = (Activations("block1_conv1"),)
LARGE_IMAGES: Final = 16
MODEL: Final = "null"
SLOW_MODEL: Final = "slow"
"""A model whose jobs never end, where the service has one."""


class Caller:
    """Every kind of call that a workload can name, against one server."""

    def __init__(self, target: str) -> None:
        self._client = Client(target)
        self._aio = AsyncClient(target)
        self._images = {kind: images(kind) for kind in ("raw", "jpeg", "photo")}
        self._pack = 0

    async def run(self, workload: Workload) -> Report:
        """Run a workload."""
        calls = {"single": self._calls, "eight": self._calls, "queue": self._queue, "idle": self._idle}
        if workload.call in calls:
            return await calls[workload.call](workload)
        blocking = {"map": self._map, "large": self._large, "transfer": self._transfer}
        return await asyncio.to_thread(blocking[workload.call], workload)

    async def close(self) -> None:
        """Close the connections."""
        self._client.close()
        await self._aio.close()

    async def _calls(self, workload: Workload) -> Report:
        """Send one image per call, or eight."""
        number = EIGHT if workload.call == "eight" else 1

        async def call(report: Report) -> None:
            images = list(islice(self._images[workload.kind], number))
            result = await self._aio.visualize(images, visualizations(workload.kind), model=MODEL)
            report.sent += sum(map(sent, images))
            for part in result.split() if number > 1 else [result]:
                record(report, part)

        report = await load.run(call, workload)
        report.images_a_job = number
        return report

    async def _queue(self, workload: Workload) -> Report:
        """Queue minimal jobs of the slow model."""
        body = tiny()

        async def call(report: Report) -> None:
            await self._aio.submit(body, SMALL, model=SLOW_MODEL, timeout=3600.0, fresh=True)
            report.images += 1
            report.sent += len(body)

        return await load.run(call, workload)

    async def _idle(self, workload: Workload) -> Report:
        """Wait without calls."""
        await asyncio.sleep(workload.seconds)
        return Report(seconds=workload.seconds)

    def _map(self, workload: Workload) -> Report:
        """Call client.map with as many jobs in flight as make the number of images."""
        if not self._pack:
            self._pack = self._images_a_job()
        jobs = max(1, workload.in_flight // self._pack)
        report = self._map_for(workload.kind, jobs, workload.seconds, sys.maxsize)
        report.images_a_job = self._pack
        return report

    def _images_a_job(self) -> int:
        """Return how many images map bundles when jobs are quick: the most in flight with a single job."""
        return min(64, self._map_for("jpeg", 1, 60.0, 256).in_flight)

    def _map_for(self, kind: str, jobs: int, seconds: float, most: int) -> Report:
        report = Report()
        started = 0
        start = perf_counter()

        def source() -> Iterator[Any]:
            nonlocal started
            for image in islice(self._images[kind], most):
                if perf_counter() > start + seconds:
                    return
                started += 1
                report.in_flight = max(report.in_flight, started - report.images)
                report.sent += sent(image)
                yield image

        for result in self._client.map(source(), visualizations(kind), model=MODEL, in_flight=jobs):
            record(report, result)
        report.seconds = perf_counter() - start
        return report

    def _large(self, _: Workload) -> Report:
        """Compute, store and read very large arrays in one call."""
        images = list(islice(self._images["jpeg"], LARGE_IMAGES))
        start = perf_counter()
        result = self._client.visualize(images, LARGE, model=MODEL)
        return Report(images=LARGE_IMAGES, received=size(result), seconds=perf_counter() - start)

    def _transfer(self, _: Workload) -> Report:
        """Compute and store the same arrays, and time only the reading of the result."""
        job = self._client.submit(list(islice(self._images["jpeg"], LARGE_IMAGES)), LARGE, model=MODEL)
        job.wait()
        start = perf_counter()
        result = job.result()
        report = Report(images=LARGE_IMAGES, received=size(result), seconds=perf_counter() - start)
        job.delete()
        return report


def images(kind: str) -> Iterator[Any]:
    """Yield images as a caller has them: arrays, or files' bytes."""
    for body in work.bodies(kind):
        yield np.frombuffer(body, np.uint8).reshape(*work.MAP, 3) if kind == "raw" else body


def tiny() -> bytes:
    """Return a PNG of one pixel."""
    out = io.BytesIO()
    Image.new("RGB", (1, 1)).save(out, "PNG")
    return out.getvalue()


def visualizations(kind: str) -> tuple[Saliency, ...]:
    """Return float32 maps for raw pixels, uint8 maps for files."""
    return RAW if kind == "raw" else SMALL


def sent(image: Any) -> int:
    """Return an image's size in bytes."""
    return image.nbytes if isinstance(image, np.ndarray) else len(image)


def size(result: Result) -> int:
    """Return a result's size in bytes."""
    return sum(array.nbytes for array in result.values())


def record(report: Report, result: Result) -> None:
    """Add one image's result to the report."""
    assert result["saliency"].shape == (1, *work.MAP)
    report.images += 1
    report.received += size(result)
    report.batch_sizes.append(result.timing.batch_size)
    report.waits.append(result.timing.wait)
    report.causes.append(result.timing.batch_cause)


async def main(target: str) -> None:
    """Run workloads against the server at `target`."""
    caller = Caller(target)
    try:
        await serve(caller.run)
    finally:
        await caller.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
