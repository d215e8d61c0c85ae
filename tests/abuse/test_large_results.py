"""The memory in which a worker computes results is bounded, also for results that are small in the end."""

from __future__ import annotations

import os
from pathlib import Path

import crashing_worker
import numpy as np
import pytest
from processes import until
from resource_usage import MIB, PHOTO, BackgroundCaller, peak, reset_peak, resident

from convlens.client import Activations, Client, InvalidArgument, Output

LAYERS = [f"block{block}_conv{number}" for block in (1, 2) for number in (1, 2)]


@pytest.fixture(scope="module")
def service(start_service, tmp_path_factory):
    folder = tmp_path_factory.mktemp("payloads")
    service = start_service(payload_dir=folder, max_stored_bytes=16 << 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(crashing_worker.__file__).parent), prepend=os.pathsep)
        service.worker_process = service.start("crashing_worker", "--model", "null=null")[0]
    service.target = service.server()[1]
    return service


def test_a_large_result_is_computed_in_slices(service, scale):
    """A result of 256 MiB of uint8, computed in float32, uses a fraction of its size in the worker."""
    worker = service.worker_process
    activations = Activations(["block1_conv1"], output=Output((2048, 2048), dtype="uint8"))
    with Client(service.target, timeout=120) as client, BackgroundCaller(service.target) as ordinary_caller:
        before = resident(worker)
        reset_peak(worker)
        jobs = [client.submit(PHOTO + np.uint8(n), [activations], model="null") for n in range(scale)]
        for job in jobs:
            job.wait()
        growth = peak(worker) - before
    assert growth < 128 * MIB * min(scale, 4), f"{growth / MIB:.0f} MiB"  # the worker computes four at a time
    assert not ordinary_caller.errors
    assert ordinary_caller.slowest < 3  # 1 s on an idle machine
    until(lambda: resident(worker) < before + 80 * MIB * min(scale, 4))  # the allocator may keep 64 of a thread


def test_a_small_result_of_gigabytes_of_activations_is_refused(service):
    with Client(service.target) as client, pytest.raises(InvalidArgument, match="working bytes; allowed: ") as caught:
        client.visualize([PHOTO] * 64, [Activations(LAYERS, output=Output((1, 1)))], model="null")
    assert caught.value.field == "spec.visualizations"


def test_concurrent_jobs_share_one_memory_budget(service, scale):
    """Twelve jobs of 400 MiB each stay below 1400 MiB together."""
    worker = service.worker_process
    activations = Activations(["block1_conv1"], output=Output((1, 1)))
    images = np.random.default_rng(5).integers(0, 256, (12 * scale, 32, 32, 32, 3), np.uint8)
    reset_peak(worker)
    before = resident(worker)
    with Client(service.target, timeout=120) as client, BackgroundCaller(service.target) as ordinary_caller:
        for job in [client.submit(batch, [activations], model="null") for batch in images]:
            job.wait()
    assert peak(worker) - before < 1400 * MIB, f"{(peak(worker) - before) / MIB:.0f} MiB"
    assert not ordinary_caller.errors
    assert ordinary_caller.slowest < 3
