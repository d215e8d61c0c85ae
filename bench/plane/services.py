"""The services, ours and peers, by their names in the tables, each with its best settings for this bench."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench.plane import service
from bench.plane.subject import Subject, peer

OURS: Final = "Convlens"
TWO: Final = "Convlens, two workers"
IN_REDIS: Final = "Convlens, payloads in Redis"
MOSEC: Final = "mosec"
ECHO: Final = "gRPC echo"

SERVICES: Final[Mapping[str, Callable[[Path], Subject]]] = {
    OURS: lambda folder: service.up(OURS, folder, "--max-batch-size", "32"),
    TWO: lambda folder: service.up(TWO, folder, "--max-batch-size", "32", "--workers", "2"),
    IN_REDIS: lambda folder: service.parts(IN_REDIS, folder, env={"CONVLENS_MAX_BATCH_SIZE": "32"}),
    f"{MOSEC} ×1": lambda folder: peer("mosec", folder, "1"),
    f"{MOSEC} ×2": lambda folder: peer("mosec", folder, "2"),
    ECHO: lambda folder: peer("echo", folder),
    "LitServe": lambda folder: peer("litserve", folder),
    "BentoML": lambda folder: peer("bentoml", folder),
    "Ray Serve": lambda folder: peer("ray", folder),
    "Celery": lambda folder: peer("celery", folder),
}
"""mosec runs with one worker process and with two, since the faster choice depends on the work; ours also with two
where images are decoded.
"""
