"""The engine in a process of its own, without any service, run by workloads like a client process."""

from __future__ import annotations

import asyncio
import os
from itertools import islice
from time import perf_counter
from typing import Any, Final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from bench.plane import work
from bench.plane.driver import serve
from bench.plane.load import Report, Workload
from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import Plan, Saliency
from convlens.worker.models.stock import randomise

BATCH: Final = 8
PLAN: Final = Plan((Saliency(),), predictions=5)


def run(network: Network, bodies: Any, workload: Workload) -> Report:
    """Run batches of eight, one after another."""
    report = Report(images_a_job=BATCH)
    began = perf_counter()
    while perf_counter() < began + workload.seconds:
        batch = b"".join(islice(bodies, BATCH))
        images = np.frombuffer(batch, np.uint8).reshape(-1, *work.MAP, 3)
        maps = network.run(images, PLAN).maps[Saliency()]
        report.images += len(images)
        report.sent += len(batch)
        report.received += maps.nbytes
    report.seconds = perf_counter() - began
    return report


async def main() -> None:
    """Run workloads."""
    model = keras.applications.VGG16(weights=None)
    randomise(model, 1)
    network = Network(model, "caffe")
    bodies = work.bodies("raw")

    async def run_in_thread(workload: Workload) -> Report:
        return await asyncio.to_thread(run, network, bodies, workload)

    await serve(run_in_thread)


if __name__ == "__main__":
    asyncio.run(main())
