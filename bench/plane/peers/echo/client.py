"""The bare echo's client: images one by one or in packs on a stream, or very many bytes into one array."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Final

import grpc
import numpy as np
import uvloop

from bench.plane import work
from bench.plane.driver import serve
from bench.plane.load import Report, Workload, run
from bench.plane.peers.echo.server import SERVICE, UNLIMITED

PACK: Final = 8
LARGE: Final = (16, SIDE := work.SIDE, SIDE, 64)
"""block1_conv1 of 16 images."""


async def main(target: str) -> None:
    """Run workloads against the service at `target`."""
    async with grpc.aio.insecure_channel(target, (*UNLIMITED, ("grpc.enable_http_proxy", 0))) as channel:
        bodies = {kind: work.bodies(kind) for kind in ("raw", "jpeg", "photo")}
        one = channel.unary_unary(f"/{SERVICE}/Single")

        async def single(workload: Workload) -> Report:
            async def call(report: Report) -> None:
                body = next(bodies[workload.kind])
                answer = await one(body)
                work.received(workload.kind, answer)
                report.images += 1
                report.sent += len(body)
                report.received += len(answer)

            return await run(call, workload)

        async def map_packs(workload: Workload) -> Report:
            report = Report(images_a_job=PACK)
            slots = asyncio.Semaphore(workload.in_flight // PACK)
            began = perf_counter()

            async def packs() -> AsyncIterator[bytes]:
                while perf_counter() < began + workload.seconds:
                    await slots.acquire()
                    pack = b"".join(next(bodies["raw"]) for _ in range(PACK))
                    report.sent += len(pack)
                    yield pack

            async for answer in channel.stream_stream(f"/{SERVICE}/Map")(packs()):
                slots.release()
                report.images += len(np.frombuffer(answer, np.float32).reshape(-1, *work.MAP))
                report.received += len(answer)
            report.seconds = perf_counter() - began
            return report

        async def large(_: Workload) -> Report:
            began = perf_counter()
            array = np.empty(LARGE, np.float32)
            into = memoryview(array).cast("B")
            at = 0
            async for chunk in channel.unary_stream(f"/{SERVICE}/Read")(b"%d" % array.nbytes):
                into[at : at + len(chunk)] = chunk
                at += len(chunk)
            return Report(images=LARGE[0], received=at, seconds=perf_counter() - began)

        calls = {"single": single, "map": map_packs, "large": large}
        await serve(lambda workload: calls[workload.call](workload))


if __name__ == "__main__":
    uvloop.run(main(f"127.0.0.1:{sys.argv[1]}"))
