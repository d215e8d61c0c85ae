"""Faults of processes: killed, paused, terminated, hanging."""

from __future__ import annotations

import functools
from collections.abc import Callable

from hanging_worker import HANG_CONSUMER, HANGING_TARGET
from processes import until

from chaos.cases import Case, large_result, null, slow, slow_decoding
from chaos.load import Load
from chaos.stack import Stack
from convlens.client import Client, Job
from convlens.v1 import job_pb2
from convlens.worker.pipeline.watchdog import HUNG

HANGING = null(HANGING_TARGET, "hanging")
POISON = null(666, "poison")
POISON_MODEL = "poison=null,device_ms=60000+0"
ATTEMPTS = 3
MANY_BYTES = 8 << 20


def is_running(job: Job) -> bool:
    """True while a worker holds the job."""
    return job.status().state == job_pb2.JOB_STATE_RUNNING


def _next_attempt(job: Job, after: int) -> int:
    """The number of the running attempt if it is later than `after`, else 0."""
    status = job.status()
    is_later = status.state == job_pb2.JOB_STATE_RUNNING and status.attempts > after
    return status.attempts if is_later else 0


def _kill_victim(stack: Stack, load: Load, case: Case, is_in_phase: Callable[[Job, int], bool]) -> None:
    """Kill the victim while a job is in a phase; try again if the job ended before the kill."""

    def attempts() -> int:
        bytes_before = stack.payload_bytes()
        job = load.submit(case)
        until(lambda: is_in_phase(job, bytes_before))
        load.mark_fault()
        stack.victim.kill()
        stack.victim.start()
        return job.wait().attempts

    assert any(attempts() > 1 for _ in range(5)), "the job was always done before its worker was killed"


def worker_killed_decoding(stack: Stack, load: Load) -> None:
    """Kill the victim during a second of decoding."""
    _kill_victim(stack, load, slow_decoding(101), lambda job, _: is_running(job))


def worker_killed_computing(stack: Stack, load: Load) -> None:
    """Kill the victim while its device is busy."""
    _kill_victim(stack, load, slow(102), lambda job, _: is_running(job))


def worker_killed_storing(stack: Stack, load: Load) -> None:
    """Kill the victim while the payloads grow by its result."""
    _kill_victim(stack, load, large_result(), lambda _, before: stack.payload_bytes() > before + MANY_BYTES)


def all_workers_killed(stack: Stack, load: Load) -> None:
    """Kill all workers at once, one of them with a job on its device."""
    job = load.submit(slow(103))
    until(lambda: is_running(job))
    load.mark_fault()
    for worker in stack.workers:
        worker.kill()
    for worker in stack.workers:
        worker.launch()
    for worker in stack.workers:
        worker.await_ready()


def server_killed_streaming(stack: Stack, load: Load) -> None:
    """Kill the server in the middle of a result, which the proxy holds back after a part."""
    stack.to_server.limit(MANY_BYTES)
    call = load.call(large_result())
    until(lambda: stack.to_server.is_limit_reached)
    load.mark_fault()
    stack.server.kill()
    stack.to_server.clear()
    assert not call.done()
    stack.server.start()


def valkey_killed(stack: Stack, load: Load) -> None:
    """Kill Valkey with a job on a device, and restart it on the same data."""
    job = load.submit(slow(104))
    until(lambda: is_running(job))
    load.mark_fault()
    stack.valkey.kill()
    stack.valkey.start()


def worker_paused(stack: Stack, load: Load) -> None:
    """Pause the victim until its job is released, so that its first attempt finishes after its lease."""
    job = load.submit(slow(105))
    until(lambda: is_running(job))
    load.mark_fault()
    stack.victim.pause()
    until(lambda: not is_running(job))
    stack.victim.resume()
    assert job.wait().attempts == 2


def poison_job(stack: Stack, load: Load) -> None:
    """Kill a worker in each attempt of one job."""
    worker = stack.worker("poisoned", POISON_MODEL)
    worker.start()
    stack.await_models("poison")
    job = load.submit(POISON)
    attempt = 0
    while attempt < ATTEMPTS:
        attempt = until(functools.partial(_next_attempt, job, attempt))
        load.mark_fault()
        worker.kill()
        if attempt < ATTEMPTS:
            worker.start()
    assert job.wait().attempts == ATTEMPTS


def device_hangs(stack: Stack, load: Load) -> None:
    """Hang the device in each attempt of one job; the jobs in its batches and behind it still succeed."""
    worker = stack.worker("hanging", "hanging=null", "null=null", "--device-timeout", "1", module="hanging_worker")
    worker.start()
    stack.await_models("hanging")
    worker.pause()  # so that all jobs are claimed together
    before = [load.submit(null(unit, "hanging")) for unit in range(3)]
    job = load.submit(HANGING)
    after = [load.submit(null(unit, "hanging")) for unit in range(3)]
    load.mark_fault()
    worker.resume()
    for attempt in range(ATTEMPTS):
        assert worker.wait() == HUNG
        assert job.status().attempts == attempt + 1
        worker.start()
    assert job.wait().attempts == ATTEMPTS
    for other in (*before, *after):
        other.wait()
    worker.kill()


def consumer_hangs(stack: Stack, load: Load) -> None:
    """Hang Celery's consumer: the process renews leases and cards and takes no more messages."""
    worker = stack.worker("stuck", "stuck=null", "--delivery-timeout", "2", module="hanging_worker")
    worker.start()
    stack.await_models("stuck")
    load.mark_fault()
    worker.signal(HANG_CONSUMER)
    job = load.submit(null(109, "stuck"))
    assert worker.wait() == HUNG
    worker.start()
    assert job.wait().attempts == 1
    worker.kill()


def worker_terminated(stack: Stack, load: Load) -> None:
    """Terminate the victim, which finishes its running job in the first attempt."""
    job = load.submit(slow(106))
    until(lambda: is_running(job))
    load.mark_fault()
    assert stack.victim.terminate() == 0
    stack.victim.start()
    assert job.wait().attempts == 1


def server_terminated(stack: Stack, load: Load) -> None:
    """Terminate the server, which finishes its open calls; clients retry new ones until it is back."""
    load.call(slow(107))
    with Client(stack.target) as client:
        until(lambda: any(status.model == "slow" for status in client.jobs("running")))
    load.mark_fault()
    assert stack.server.terminate() == 0
    stack.server.start()


def valkey_terminated(stack: Stack, load: Load) -> None:
    """Terminate Valkey, which saves its data, and restart it."""
    job = load.submit(slow(108))
    until(lambda: is_running(job))
    load.mark_fault()
    assert stack.valkey.terminate() == 0
    stack.valkey.start()
