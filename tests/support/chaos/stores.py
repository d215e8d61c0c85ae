"""Faults of what keeps the jobs: Redis full, its disk full; and wall clocks that jump."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator

from processes import full, until

from chaos.hurt import running
from chaos.load import Load
from chaos.questions import TINY, slow
from chaos.stack import LEASE, Stack
from convlens.client import Client, ConvlensError, GradCAM, Overloaded, Unavailable
from convlens.jobs import model_registry
from convlens.jobs.queue import keys
from convlens.v1 import job_pb2

HOURS = 2 * 3600
JUMP = 30
"""Seconds: more than anything is believed for, less than a job may take."""


def _refused(stack: Stack, error: type[ConvlensError], reason: str) -> bool:
    """True when a caller of two seconds' patience is told so."""
    try:
        with Client(stack.target, timeout=2) as client:
            job = client.submit(TINY, [GradCAM()], model="null")
    except ConvlensError as told:
        return isinstance(told, error) and told.reason == reason
    stack.known.add(job.id)
    return False


def _serves_until(stack: Stack) -> float:
    """When the workers of the model null are taken for gone unless they are heard of before; 0 without any."""
    return max((ends for _, ends in stack.redis.zrange(keys.serving("null"), 0, -1, withscores=True)), default=0.0)


def redis_full(stack: Stack, load: Load) -> None:
    """Admission refuses with when to try again, a lease later, too; what is under way ends before there is room.

    A server starts all the same; a worker, for which Celery has to write something, once there is room.
    """
    job = load.begin(slow(201))
    until(lambda: running(job))
    load.strike()
    with full(stack.redis):
        until(lambda: _refused(stack, Overloaded, "STORE_FULL"))
        ends = until(lambda: _serves_until(stack))
        until(lambda: _serves_until(stack) > ends + LEASE)
        until(lambda: _refused(stack, Overloaded, "STORE_FULL"))  # workers are still known
        ended = job.wait()
        assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended
        for part in (stack.server, stack.victim):
            part.kill()
            part.launch()
        stack.server.await_ready()
        until(lambda: _refused(stack, Overloaded, "STORE_FULL"))
    stack.victim.await_ready()


@contextlib.contextmanager
def _no_room(stack: Stack) -> Iterator[None]:
    """The append-only file cannot grow: by RLIMIT_FSIZE of the process, which unlike a small disk needs no root."""
    files = (stack.valkey.log.parent / "valkey" / "appendonlydir").iterdir()
    largest = max(it.stat().st_size for it in files)
    _, hard = resource.prlimit(stack.valkey.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(stack.valkey.pid, resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.prlimit(stack.valkey.pid, resource.RLIMIT_FSIZE, (hard, hard))


def disk_full(stack: Stack, load: Load) -> None:
    """Valkey takes no writes while it cannot log them, and the front says so, also once no worker is known any more."""
    job = load.begin(slow(202))
    until(lambda: running(job))
    load.strike()
    with _no_room(stack):
        until(lambda: _refused(stack, Unavailable, "REDIS_UNAVAILABLE"))
        until(lambda: not model_registry.read_live_workers(stack.redis))
        until(lambda: _refused(stack, Unavailable, "REDIS_UNAVAILABLE"))  # and not for want of workers
    job.wait()


def clocks(stack: Stack, load: Load) -> None:
    """The server's and the workers' wall clocks go hours forth and back; Redis' clock rules."""
    load.strike()
    for offset in (HOURS, -HOURS, 0):
        stack.clock.write_text(str(offset))
        load.more(8)


def redis_clock(stack: Stack, load: Load) -> None:
    """Forth and back, so that leases end too early and are believed too long."""

    def ahead() -> float:
        return stack.redis.time()[0] - time.time()

    load.strike()
    for offset in (JUMP, 0, -JUMP, 0):
        stack.redis_clock.write_text(f"{offset:+}\n")
        until(lambda wanted=offset: abs(ahead() - wanted) < 2)
        load.more(8)
