"""The worker's settings: the models it serves and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from pydantic import Field

from convlens.jobs.runtime.settings import JobsSettings, Names

DEFAULT_BATCH_SIZE: Final = 8


class WorkerSettings(JobsSettings):
    """A worker's settings: flags, CONVLENS_* variables, or lines of the TOML file that CONVLENS_CONFIG names.

    models/source.py parses the models.
    """

    SECTIONS: ClassVar[Sequence[str]] = ("worker",)
    PANELS: ClassVar[dict[str, Sequence[str]]] = {
        "Models": ("model", "max_batch_size", "max_image_pixels"),
        "Worker": ("name", "consumers", "decoders", "working_bytes", "device_timeout", "delivery_timeout"),
        "Switches": ("celery_control",),
    }

    model: Names = Field(
        ["shapes=shapes"], description="a model to serve, NAME=SOURCE[,option=value…]; may be given several times"
    )
    max_batch_size: int = Field(DEFAULT_BATCH_SIZE, ge=1, description="images that share a pass on the device")
    consumers: int = Field(
        4, ge=1, description="threads a model that claim and decode, and threads that store, while devices compute"
    )
    max_image_pixels: int = Field(64_000_000, ge=1, description="width × height of one image")
    decoders: int = Field(
        2, ge=1, description="processes that decode large images, each one of up to max_image_pixels at a time"
    )
    working_bytes: int = Field(
        1 << 30, ge=1, description="bytes of the arrays of all large results in progress; one that needs more is"
        " computed alone"
    )  # fmt: skip
    device_timeout: float = Field(
        180.0, gt=0, description="seconds that one batch may be on the device before the worker ends as hung"
    )
    delivery_timeout: float = Field(
        60.0, gt=0, description="seconds that messages may wait for a worker with free threads before it ends as hung"
    )
    celery_control: bool = Field(
        True, description="answer `celery inspect` and `control`, and send the events that Flower and exporters show"
    )
    name: str = Field("", description="the worker's name in logs and results; by default host and process id")
