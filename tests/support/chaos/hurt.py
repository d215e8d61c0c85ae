"""Faults of processes: killed, stopped, told to end."""

from __future__ import annotations

import functools
from collections.abc import Callable

from hanging import DEAFEN, WAITS
from processes import until

from chaos.load import Load
from chaos.questions import Question, big, null, slow, vast
from chaos.stack import Stack
from convlens.client import Client, Job
from convlens.v1 import job_pb2
from convlens.worker.pipeline.watchdog import HUNG

HANGING = null(WAITS, "hanging")
POISON = null(666, "poison")
POISON_LASTS = "poison=null,device_ms=60000+0"
ATTEMPTS = 3
BIG = 8 << 20


def running(job: Job) -> bool:
    """True while a worker has it."""
    return job.status().state == job_pb2.JOB_STATE_RUNNING


def _begun(job: Job, after: int) -> int:
    """How often it was begun, once a worker has it again; else 0."""
    now = job.status()
    return now.attempts if now.state == job_pb2.JOB_STATE_RUNNING and now.attempts > after else 0


def _killed(stack: Stack, load: Load, question: Question, phase: Callable[[Job, int], bool]) -> None:
    """Kills the victim in a phase of a job; again when the job was faster."""

    def attempts() -> int:
        before = stack.stored()
        job = load.begin(question)
        until(lambda: phase(job, before))
        load.strike()
        stack.victim.kill()
        stack.victim.start()
        return job.wait().attempts

    assert any(attempts() > 1 for _ in range(5)), "the job was always done before its worker was killed"


def worker_decoding(stack: Stack, load: Load) -> None:
    """Four files of 16 million pixels each take a second to decode."""
    _killed(stack, load, vast(101), lambda job, _: running(job))


def worker_computing(stack: Stack, load: Load) -> None:
    """The device takes its time, and the rest takes none."""
    _killed(stack, load, slow(102), lambda job, _: running(job))


def worker_storing(stack: Stack, load: Load) -> None:
    """Payloads grow while a result is written."""
    _killed(stack, load, big(), lambda _, before: stack.stored() > before + BIG)


def all_workers(stack: Stack, load: Load) -> None:
    """At once, one of them with a job on its device."""
    job = load.begin(slow(103))
    until(lambda: running(job))
    load.strike()
    for worker in stack.workers:
        worker.kill()
    for worker in stack.workers:
        worker.launch()
    for worker in stack.workers:
        worker.await_ready()


def server_streaming(stack: Stack, load: Load) -> None:
    """The proxy lets a part of a result through, so that the server certainly dies in the middle of it."""
    stack.to_server.choke(BIG)
    call = load.call(big())
    until(lambda: stack.to_server.choked)
    load.strike()
    stack.server.kill()
    stack.to_server.mend()
    assert not call.done()
    stack.server.start()


def valkey(stack: Stack, load: Load) -> None:
    """With a job on a device; it comes back on the same data."""
    job = load.begin(slow(104))
    until(lambda: running(job))
    load.strike()
    stack.valkey.kill()
    stack.valkey.start()


def worker_stopped(stack: Stack, load: Load) -> None:
    """Until its job was given back; when it goes on, it answers too late, and takes the job anew."""
    job = load.begin(slow(105))
    until(lambda: running(job))
    load.strike()
    stack.victim.pause()
    until(lambda: not running(job))
    stack.victim.resume()
    assert job.wait().attempts == 2


def poison(stack: Stack, load: Load) -> None:
    """A worker is killed whenever it has that one job."""
    worker = stack.worker("poisoned", POISON_LASTS)
    worker.start()
    stack.await_whole("poison")
    job = load.begin(POISON)
    begun = 0
    while begun < ATTEMPTS:
        begun = until(functools.partial(_begun, job, begun))
        load.strike()
        worker.kill()
        if begun < ATTEMPTS:
            worker.start()
    assert job.wait().attempts == ATTEMPTS


def device_hangs(stack: Stack, load: Load) -> None:
    """On one job, whenever it has it; the jobs that share its batches, and those that wait, are answered."""
    worker = stack.worker("hanging", "hanging=null", "null=null", "--device-timeout", "1", module="hanging")
    worker.start()
    stack.await_whole("hanging")
    worker.pause()  # so that they are claimed together
    before = [load.begin(null(unit, "hanging")) for unit in range(3)]
    job = load.begin(HANGING)
    after = [load.begin(null(unit, "hanging")) for unit in range(3)]
    load.strike()
    worker.resume()
    for attempt in range(ATTEMPTS):
        assert worker.ended() == HUNG
        assert job.status().attempts == attempt + 1
        worker.start()
    assert job.wait().attempts == ATTEMPTS
    for other in (*before, *after):
        other.wait()
    worker.kill()


def consumer_hangs(stack: Stack, load: Load) -> None:
    """The process lives, renews leases and cards, and takes no message any more."""
    worker = stack.worker("deaf", "deaf=null", "--delivery-timeout", "2", module="hanging")
    worker.start()
    stack.await_whole("deaf")
    load.strike()
    worker.signal(DEAFEN)
    job = load.begin(null(109, "deaf"))
    assert worker.ended() == HUNG
    worker.start()
    assert job.wait().attempts == 1
    worker.kill()


def worker_told(stack: Stack, load: Load) -> None:
    """It ends what it has begun, and its job is begun once."""
    job = load.begin(slow(106))
    until(lambda: running(job))
    load.strike()
    assert stack.victim.terminate() == 0
    stack.victim.start()
    assert job.wait().attempts == 1


def server_told(stack: Stack, load: Load) -> None:
    """It ends the calls under way; new ones are tried again until it is back."""
    load.call(slow(107))
    with Client(stack.target) as client:
        until(lambda: any(it.model == "slow" for it in client.jobs("running")))
    load.strike()
    assert stack.server.terminate() == 0
    stack.server.start()


def valkey_told(stack: Stack, load: Load) -> None:
    """It writes what it has and comes back on the same data."""
    job = load.begin(slow(108))
    until(lambda: running(job))
    load.strike()
    assert stack.valkey.terminate() == 0
    stack.valkey.start()
