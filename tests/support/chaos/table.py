"""The faults, one row each, in lanes: the faults of a lane are injected one after another into one stack."""

from __future__ import annotations

from dataclasses import dataclass

from chaos import link_faults as link
from chaos import process_faults as process
from chaos import storage_faults as storage
from chaos.fault import Fault
from convlens.client import DeadlineExceeded, Unavailable

NOTHING = "nothing: the SDK tries again by itself"
LATER = "nothing: the job takes longer, by a lease and a start at most"


@dataclass(frozen=True, slots=True)
class Lane:
    """Faults that share a stack, and the options of that stack."""

    name: str
    faults: tuple[Fault, ...]
    shapes: bool = False
    """True: a worker computes real maps."""
    payloads_in_folder: bool = False
    """False: payloads are in Valkey."""


LANES = (
    Lane(
        "computing",
        (
            Fault("worker killed while decoding", process.worker_killed_decoding, LATER),
            Fault("worker killed while computing", process.worker_killed_computing, LATER),
            Fault(
                "all workers killed",
                process.all_workers_killed,
                "`Unavailable` (NO_WORKERS), when its timeout ends before a worker is back",
                errors=(Unavailable,),
            ),
            Fault("Valkey killed", process.valkey_killed, NOTHING),
            Fault(
                "Redis full", storage.redis_full, "`Overloaded` (STORE_FULL), when its timeout ends before the fault"
            ),
        ),
        shapes=True,
        payloads_in_folder=True,
    ),
    Lane(
        "serving",
        (
            Fault("worker killed while storing", process.worker_killed_storing, LATER),
            Fault("worker stopped beyond its lease", process.worker_paused, LATER),
            Fault("worker terminated", process.worker_terminated, "nothing"),
            Fault("server killed in a stream", process.server_killed_streaming, NOTHING),
            Fault("server terminated", process.server_terminated, NOTHING),
        ),
        payloads_in_folder=True,
    ),
    Lane(
        "storing",
        (
            Fault("Valkey terminated", process.valkey_terminated, NOTHING),
            Fault("AOF cannot be written", storage.disk_full, "`Unavailable`, when its timeout ends before the fault"),
            Fault("wall clocks jump", storage.clocks, "nothing"),
            Fault("Redis' clock jumps", storage.redis_clock, "nothing: the job takes longer, by the jump at most"),
            Fault("server to Redis cut", link.cut(link.server_redis), NOTHING),
            Fault("server to Redis late", link.delay(link.server_redis), "nothing"),
            Fault("server to Redis half-open", link.half_open(link.server_redis), NOTHING),
        ),
    ),
    Lane(
        "linking",
        (
            Fault("worker to Redis cut", link.cut(link.victim_redis), LATER),
            Fault("worker to Redis late", link.delay(link.victim_redis), "nothing"),
            Fault("worker to Redis half-open", link.half_open(link.victim_redis), LATER),
            Fault("client to server cut", link.cut(link.to_server), NOTHING),
            Fault("client to server late", link.delay(link.to_server), "nothing"),
            Fault(
                "client to server half-open",
                link.half_open(link.to_server),
                "`DeadlineExceeded` when its timeout ends, of a new `Client` `Unavailable` (SERVER_UNREACHABLE); once "
                "there is a connection again, a new one finds the job by the same `request_id`",
                errors=(DeadlineExceeded, Unavailable),
                call_seconds=2.0,
            ),
            Fault(
                "poison job",
                process.poison_job,
                "`JobFailed` (ATTEMPTS_EXHAUSTED), of that job alone",
                failing={process.POISON: "ATTEMPTS_EXHAUSTED"},
            ),
            Fault(
                "device hangs",
                process.device_hangs,
                "`JobFailed` (ATTEMPTS_EXHAUSTED), of the job that it hangs on alone",
                failing={process.HANGING: "ATTEMPTS_EXHAUSTED"},
            ),
            Fault("consumer hangs", process.consumer_hangs, LATER),
        ),
    ),
)
TABLE = tuple(fault for lane in LANES for fault in lane.faults)
