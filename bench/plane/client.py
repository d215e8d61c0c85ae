"""Our own client process, on the SDK's surface alone: `python -m bench.plane.client TARGET`."""

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
from bench.plane.driver import obey
from bench.plane.load import Order, Report
from convlens.client import Activations, AsyncClient, Client, Output, Result, Saliency

RAW: Final = (Saliency(),)
SMALL: Final = (Saliency(output=Output(dtype="uint8")),)
EIGHT: Final = 8
LARGE: Final = (Activations("block1_conv1"),)
LARGE_IMAGES: Final = 16
MODEL: Final = "null"
SLOW_MODEL: Final = "slow"
"""A model whose jobs wait for ever, where the service has one."""


class Caller:
    """Every call that an order can name, against one server."""

    def __init__(self, target: str) -> None:
        self._client = Client(target)
        self._aio = AsyncClient(target)
        self._images = {kind: images(kind) for kind in ("raw", "jpeg", "photo")}
        self._pack = 0

    async def obey(self, order: Order) -> Report:
        """Does what is asked."""
        calls = {"single": self._calls, "eight": self._calls, "queue": self._queue, "idle": self._idle}
        if order.call in calls:
            return await calls[order.call](order)
        blocking = {"map": self._map, "large": self._large, "transfer": self._transfer}
        return await asyncio.to_thread(blocking[order.call], order)

    async def close(self) -> None:
        """Ends the connections."""
        self._client.close()
        await self._aio.close()

    async def _calls(self, order: Order) -> Report:
        """An image a call, or eight."""
        number = EIGHT if order.call == "eight" else 1

        async def call(report: Report) -> None:
            images = list(islice(self._images[order.kind], number))
            result = await self._aio.visualize(images, asked(order.kind), model=MODEL)
            report.sent += sum(map(sent, images))
            for part in result.split() if number > 1 else [result]:
                take(report, part)

        report = await load.run(call, order)
        report.images_a_job = number
        return report

    async def _queue(self, order: Order) -> Report:
        """Jobs as small as can be, left in the queue of the slow model."""
        body = tiny()

        async def call(report: Report) -> None:
            await self._aio.submit(body, SMALL, model=SLOW_MODEL, timeout=3600.0, fresh=True)
            report.images += 1
            report.sent += len(body)

        return await load.run(call, order)

    async def _idle(self, order: Order) -> Report:
        """Nothing, for as long."""
        await asyncio.sleep(order.seconds)
        return Report(seconds=order.seconds)

    def _map(self, order: Order) -> Report:
        """client.map, with as many jobs in flight as make the images asked for."""
        if not self._pack:
            self._pack = self._images_a_job()
        jobs = max(1, order.in_flight // self._pack)
        report = self._mapped(order.kind, jobs, order.seconds, sys.maxsize)
        report.images_a_job = self._pack
        return report

    def _images_a_job(self) -> int:
        """How many images map packs when jobs are quick: the most that it has of them with a single job in flight."""
        return min(64, self._mapped("jpeg", 1, 60.0, 256).in_flight)

    def _mapped(self, kind: str, jobs: int, seconds: float, most: int) -> Report:
        report = Report()
        taken = 0
        began = perf_counter()

        def source() -> Iterator[Any]:
            nonlocal taken
            for image in islice(self._images[kind], most):
                if perf_counter() > began + seconds:
                    return
                taken += 1
                report.in_flight = max(report.in_flight, taken - report.images)
                report.sent += sent(image)
                yield image

        for result in self._client.map(source(), asked(kind), model=MODEL, in_flight=jobs):
            take(report, result)
        report.seconds = perf_counter() - began
        return report

    def _large(self, _: Order) -> Report:
        """Very large arrays in one call: computed, stored and read."""
        images = list(islice(self._images["jpeg"], LARGE_IMAGES))
        began = perf_counter()
        result = self._client.visualize(images, LARGE, model=MODEL)
        return Report(images=LARGE_IMAGES, received=size(result), seconds=perf_counter() - began)

    def _transfer(self, _: Order) -> Report:
        """The same, but only the reading of a result that is there is timed."""
        job = self._client.submit(list(islice(self._images["jpeg"], LARGE_IMAGES)), LARGE, model=MODEL)
        job.wait()
        began = perf_counter()
        result = job.result()
        report = Report(images=LARGE_IMAGES, received=size(result), seconds=perf_counter() - began)
        job.delete()
        return report


def images(kind: str) -> Iterator[Any]:
    """As a caller has them: arrays, or files' bytes."""
    for body in work.bodies(kind):
        yield np.frombuffer(body, np.uint8).reshape(*work.MAP, 3) if kind == "raw" else body


def tiny() -> bytes:
    """A PNG of one pixel."""
    out = io.BytesIO()
    Image.new("RGB", (1, 1)).save(out, "PNG")
    return out.getvalue()


def asked(kind: str) -> tuple[Saliency, ...]:
    """float32 maps of raw pixels, uint8 maps of files."""
    return RAW if kind == "raw" else SMALL


def sent(image: Any) -> int:
    """An image's bytes."""
    return image.nbytes if isinstance(image, np.ndarray) else len(image)


def size(result: Result) -> int:
    """A result's bytes."""
    return sum(array.nbytes for array in result.values())


def take(report: Report, result: Result) -> None:
    """Adds one image's result."""
    assert result["saliency"].shape == (1, *work.MAP)
    report.images += 1
    report.received += size(result)
    report.batch_sizes.append(result.timing.batch_size)
    report.waits.append(result.timing.wait)
    report.causes.append(result.timing.batch_cause)


async def main(target: str) -> None:
    """Obeys orders against the server at `target`."""
    caller = Caller(target)
    try:
        await obey(caller.obey)
    finally:
        await caller.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
