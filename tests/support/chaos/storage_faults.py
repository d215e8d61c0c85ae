"""Faults of storage and time: Redis full, its disk full, wall clocks that jump."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator

from processes import full, until

from chaos.cases import TINY, slow
from chaos.load import Load
from chaos.process_faults import is_running
from chaos.stack import LEASE, Stack
from convlens.client import Client, ConvlensError, GradCAM, Overloaded, Unavailable
from convlens.jobs import model_registry
from convlens.jobs.queue import keys
from convlens.v1 import job_pb2

HOURS = 2 * 3600
JUMP = 30
"""Seconds: longer than any lease or heartbeat, shorter than a job's timeout."""


def _is_rejected(stack: Stack, error: type[ConvlensError], reason: str) -> bool:
    """True when a new job is rejected with this error and reason within two seconds."""
    try:
        with Client(stack.target, timeout=2) as client:
            job = client.submit(TINY, [GradCAM()], model="null")
    except ConvlensError as rejection:
        return isinstance(rejection, error) and rejection.reason == reason
    stack.job_ids.add(job.id)
    return False


def _serves_until(stack: Stack) -> float:
    """When the last heartbeat of the workers of `null` expires (Unix seconds); 0 without workers."""
    return max((expiry for _, expiry in stack.redis.zrange(keys.serving("null"), 0, -1, withscores=True)), default=0.0)


def redis_full(stack: Stack, load: Load) -> None:
    """Fill Redis. New jobs are rejected with a retry delay, also after a lease; a running job still succeeds.

    A server starts while Redis is full; a worker, for which Celery has to write to Redis, starts afterwards.
    """
    job = load.submit(slow(201))
    until(lambda: is_running(job))
    load.mark_fault()
    with full(stack.redis):
        until(lambda: _is_rejected(stack, Overloaded, "STORE_FULL"))
        expiry = until(lambda: _serves_until(stack))
        until(lambda: _serves_until(stack) > expiry + LEASE)
        until(lambda: _is_rejected(stack, Overloaded, "STORE_FULL"))  # workers are still known
        status = job.wait()
        assert status.state == job_pb2.JOB_STATE_SUCCEEDED, status
        for process in (stack.server, stack.victim):
            process.kill()
            process.launch()
        stack.server.await_ready()
        until(lambda: _is_rejected(stack, Overloaded, "STORE_FULL"))
    stack.victim.await_ready()


@contextlib.contextmanager
def _full_disk(stack: Stack) -> Iterator[None]:
    """Stop the append-only file from growing by RLIMIT_FSIZE, which unlike a small disk needs no root."""
    files = (stack.valkey.log.parent / "valkey" / "appendonlydir").iterdir()
    largest = max(file.stat().st_size for file in files)
    _, hard = resource.prlimit(stack.valkey.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(stack.valkey.pid, resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.prlimit(stack.valkey.pid, resource.RLIMIT_FSIZE, (hard, hard))


def disk_full(stack: Stack, load: Load) -> None:
    """Fill Valkey's disk, so that it rejects writes; the server reports Redis, also once no worker is known."""
    job = load.submit(slow(202))
    until(lambda: is_running(job))
    load.mark_fault()
    with _full_disk(stack):
        until(lambda: _is_rejected(stack, Unavailable, "REDIS_UNAVAILABLE"))
        until(lambda: not model_registry.read_live_workers(stack.redis))
        until(lambda: _is_rejected(stack, Unavailable, "REDIS_UNAVAILABLE"))  # and not the missing workers
    job.wait()


def clocks(stack: Stack, load: Load) -> None:
    """Shift the wall clocks of the server and the workers by hours; only Redis' clock matters."""
    load.mark_fault()
    for offset in (HOURS, -HOURS, 0):
        stack.clock.write_text(str(offset))
        load.await_completions(8)


def redis_clock(stack: Stack, load: Load) -> None:
    """Shift Redis' clock forth and back, so that leases expire too early and too late."""

    def redis_offset() -> float:
        return stack.redis.time()[0] - time.time()

    load.mark_fault()
    for offset in (JUMP, 0, -JUMP, 0):
        stack.redis_clock.write_text(f"{offset:+}\n")
        until(lambda offset=offset: abs(redis_offset() - offset) < 2)
        load.await_completions(8)
