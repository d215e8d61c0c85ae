"""The faults, one row each, in lanes: the faults of a lane are done one after another to one stack."""

from __future__ import annotations

from dataclasses import dataclass

from chaos import hurt, spoilt, stores
from chaos.fault import Fault
from convlens.client import DeadlineExceeded, NotFound, Unavailable

NOTHING = "nothing: the SDK tries again by itself"
LATER = "nothing: the job takes longer, by a lease and a start at most"


@dataclass(frozen=True, slots=True)
class Lane:
    """Faults, and what their stack is like."""

    name: str
    faults: tuple[Fault, ...]
    shapes: bool = False
    """True: real maps are computed."""
    payloads_in_folder: bool = False
    """False: they are in Valkey."""


LANES = (
    Lane(
        "computing",
        (
            Fault("worker killed while decoding", hurt.worker_decoding, LATER),
            Fault("worker killed while computing", hurt.worker_computing, LATER),
            Fault(
                "all workers killed",
                hurt.all_workers,
                "`NotFound` (MODEL_UNKNOWN) of a new call once no worker has served its model for a lease",
                errors=(NotFound,),
            ),
            Fault("Valkey killed", hurt.valkey, NOTHING),
            Fault("Redis full", stores.redis_full, "`Overloaded` (STORE_FULL), when its timeout ends before the fault"),
        ),
        shapes=True,
        payloads_in_folder=True,
    ),
    Lane(
        "serving",
        (
            Fault("worker killed while storing", hurt.worker_storing, LATER),
            Fault("worker stopped beyond its lease", hurt.worker_stopped, LATER),
            Fault("worker terminated", hurt.worker_told, "nothing"),
            Fault("server killed in a stream", hurt.server_streaming, NOTHING),
            Fault("server terminated", hurt.server_told, NOTHING),
        ),
        payloads_in_folder=True,
    ),
    Lane(
        "storing",
        (
            Fault("Valkey terminated", hurt.valkey_told, NOTHING),
            Fault("AOF cannot be written", stores.disk_full, "`Unavailable`, when its timeout ends before the fault"),
            Fault("wall clocks jump", stores.clocks, "nothing"),
            Fault("Redis' clock jumps", stores.redis_clock, "nothing: the job takes longer, by the jump at most"),
            Fault("server to Redis cut", spoilt.cut(spoilt.server_redis), NOTHING),
            Fault("server to Redis late", spoilt.late(spoilt.server_redis), "nothing"),
            Fault("server to Redis half-open", spoilt.half_open(spoilt.server_redis), NOTHING),
        ),
    ),
    Lane(
        "linking",
        (
            Fault("worker to Redis cut", spoilt.cut(spoilt.victim_redis), LATER),
            Fault("worker to Redis late", spoilt.late(spoilt.victim_redis), "nothing"),
            Fault("worker to Redis half-open", spoilt.half_open(spoilt.victim_redis), LATER),
            Fault("client to server cut", spoilt.cut(spoilt.to_server), NOTHING),
            Fault("client to server late", spoilt.late(spoilt.to_server), "nothing"),
            Fault(
                "client to server half-open",
                spoilt.half_open(spoilt.to_server),
                "`DeadlineExceeded` when its timeout ends, of a new `Client` `Unavailable` (SERVER_UNREACHABLE); once "
                "there is a connection again, a new one finds the job by the same `request_id`",
                errors=(DeadlineExceeded, Unavailable),
                patience=2.0,
            ),
            Fault(
                "poison job",
                hurt.poison,
                "`JobFailed` (ATTEMPTS_EXHAUSTED), of that job alone",
                fails={hurt.POISON: "ATTEMPTS_EXHAUSTED"},
            ),
            Fault(
                "device hangs",
                hurt.device_hangs,
                "`JobFailed` (ATTEMPTS_EXHAUSTED), of the job that it hangs on alone",
                fails={hurt.HANGING: "ATTEMPTS_EXHAUSTED"},
            ),
            Fault("consumer hangs", hurt.consumer_hangs, LATER),
        ),
    ),
)
TABLE = tuple(fault for lane in LANES for fault in lane.faults)
