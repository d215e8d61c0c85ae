"""The settings of `convlens up`, which include those of the server and the workers that it starts."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field

from convlens.jobs.runtime.settings import NamedPath, Names
from convlens.server.settings import ServerSettings
from convlens.worker.settings import WorkerSettings

STDERR: Final = Path("-")
"""The log that means stderr."""


class UpSettings(WorkerSettings, ServerSettings):
    """Everything on one machine: Valkey, workers and servers.

    Each setting is a flag, a CONVLENS_* variable, or a line of the TOML file that CONVLENS_CONFIG names.
    """

    SECTIONS: ClassVar[Sequence[str]] = ("server", "worker", "up")
    PANELS: ClassVar[dict[str, Sequence[str]]] = {
        "This machine": ("data_dir", "log", "tls_dir", "servers", "workers"),
        "Page and HTTP": ("web", "web_port", "web_allowed_hosts"),
    }

    redis_url: str = Field("", description="URL of a Redis or Valkey to use; none: a private Valkey is started")
    data_dir: NamedPath | None = Field(
        None, description="folder that keeps jobs and results; none: they are lost when this command ends"
    )
    log: NamedPath | None = Field(
        None,
        description="file for all that Valkey, workers and servers log, - for stderr; none: up.log in the data folder, "
        "which is temporary without data_dir. Warnings and errors go to stderr, too",
    )
    tls_dir: NamedPath | None = Field(
        None, description="folder of certificates, created if missing; only clients with a certificate are served"
    )
    servers: int = Field(1, ge=1, description="server processes on the port; the kernel spreads connections over them")
    workers: int = Field(1, ge=1, description="worker processes; each loads all models")
    web: bool = Field(False, description="serve a page to explore maps in a browser, and HTTP, on web_port, too")
    web_port: int = Field(8080, ge=0, le=65535, description="port of the page and of HTTP; 0 picks a free one")
    web_allowed_hosts: Names = Field(
        [], description="a name by which browsers may call the page, beside those of this machine; may be given several"
        " times"
    )  # fmt: skip

    def environment(self, **changes: object) -> dict[str, str]:
        """Return this process' environment with the settings that servers and workers read."""
        shared = {*ServerSettings.model_fields, *WorkerSettings.model_fields}
        values = self.model_dump(include=shared) | changes
        variables = {f"CONVLENS_{name.upper()}": _format(value) for name, value in values.items() if value is not None}
        return os.environ | variables


def _format(value: object) -> str:
    """Format a value as an environment variable."""
    return shlex.join(value) if isinstance(value, list) else str(value)
