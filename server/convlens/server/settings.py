"""The server's settings: addresses, limits, security."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, ValidationInfo, field_validator

from convlens.jobs.queue.admission import Bounds
from convlens.jobs.runtime.settings import JobsSettings, NamedPath
from convlens.v1.conventions import DEFAULT_TIMEOUT


def is_loopback(host: str) -> bool:
    """Whether a server that listens at `host` is reachable from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.startswith("unix")


class ServerSettings(JobsSettings):
    """Each field is a flag, a CONVLENS_* variable, or a line of the TOML file that CONVLENS_CONFIG names."""

    SECTIONS: ClassVar[Sequence[str]] = ("server",)
    PANELS: ClassVar[dict[str, Sequence[str]]] = {
        "Address": ("host", "port", "publish"),
        "Security": ("tokens", "tls_cert", "tls_key", "tls_client_ca", "tenant_share", "tenant_rate", "tenant_burst"),
        "Bounds of a request": (
            "max_request_bytes", "max_images", "max_image_pixels", "max_job_pixels", "max_visualizations",
            "max_targets", "max_passes", "max_working_bytes", "max_result_bytes", "default_timeout", "max_timeout",
        ),
        "Bounds of the server": (
            "max_connections", "max_calls", "max_receiving_bytes", "max_sending_bytes", "chunk_bytes",
            "io_threads", "drain_grace",
        ),
        "Jobs": ("max_jobs", "max_queued_bytes", "max_queued_pixels", "max_stored_bytes", "max_known_jobs"),
        "Logs and metrics": ("health_address",),
        "Switches": ("reuse_port", "reflection"),
    }  # fmt: skip

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for every interface")
    port: int = Field(50051, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    reuse_port: bool = Field(False, description="share the port with other servers of this machine (SO_REUSEPORT)")
    max_request_bytes: int = Field(64 << 20, ge=1024, description="bytes of one request")
    max_receiving_bytes: int = Field(
        256 << 20,
        ge=2048,
        description="bytes of all requests being received or not yet stored; a connection may hold half",
    )
    max_sending_bytes: int = Field(
        256 << 20,
        ge=1024,
        description="bytes of all results being sent, three copies each; a connection may hold an eighth",
    )
    max_connections: int = Field(1024, ge=1, description="concurrent connections to each address")
    max_calls: int = Field(
        4096, ge=1, description="concurrent calls; a sixteenth of these without a token (health, reflection)"
    )
    max_images: int = Field(64, ge=1, description="images of one job")
    max_image_pixels: int = Field(64_000_000, ge=1, description="width × height of one image")
    max_job_pixels: int = Field(512_000_000, ge=1, description="width × height of all images of one job together")
    max_working_bytes: int = Field(
        1 << 30, ge=1, description="bytes of the float32 arrays that one job's result is made of"
    )
    max_result_bytes: int = Field(1 << 30, ge=1, description="bytes of one job's result")
    max_visualizations: int = Field(32, ge=1, description="visualizations of one job")
    max_targets: int = Field(16, ge=1, description="targets of one image")
    max_passes: int = Field(100_000, ge=1, description="passes of one job: images × (1 + those of its methods)")
    max_jobs: int = Field(10_000, ge=1, description="jobs queued and running at once")
    max_queued_bytes: int = Field(1 << 30, ge=1, description="bytes of the images and records of all live jobs")
    max_queued_pixels: int = Field(8_000_000_000, ge=1, description="pixels of the images of all live jobs")
    max_stored_bytes: int = Field(2 << 30, ge=1, description="bytes of all results, those of live jobs reserved")
    max_known_jobs: int = Field(
        100_000,
        ge=1,
        description="records of live and ended jobs; when exceeded, the oldest deletable ones are removed",
    )
    tenant_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of these five, max_calls, max_receiving_bytes and max_sending_bytes that one tenant may use",
    )
    max_timeout: float = Field(3600.0, gt=0, description="longest timeout of a job, in seconds")
    default_timeout: float = Field(DEFAULT_TIMEOUT, gt=0, description="timeout of a job that gives none, in seconds")
    drain_grace: float = Field(20.0, ge=0, description="seconds that running calls have to finish after SIGTERM")
    chunk_bytes: int = Field(1 << 20, ge=1024, le=3 << 20, description="bytes of one chunk of a result")
    io_threads: int = Field(16, ge=1, description="threads that talk to Redis and the payload store")
    tls_cert: NamedPath | None = Field(None, description="the server's certificate chain, PEM; none: plaintext")
    tls_key: NamedPath | None = Field(None, description="the key of tls_cert, PEM, without a password")
    tls_client_ca: NamedPath | None = Field(
        None, description="authorities of clients' certificates, PEM; set: clients need such a certificate"
    )
    tokens: NamedPath | None = Field(
        None, description="file of tokens (convlens token new); none: every caller has every role"
    )
    publish: str = Field(
        "", description="address at which a container's port is published, where others reach the server; none: at"
        " host. Other than loopback it needs tokens or tls_client_ca"
    )  # fmt: skip
    tenant_rate: float | None = Field(
        None,
        gt=0,
        description="passes of an image per second that one tenant may submit; none: unlimited. Needs tokens",
    )
    tenant_burst: float = Field(10.0, ge=0, description="burst of a tenant, in seconds of its rate")
    reflection: bool = Field(True, description="serve gRPC reflection")
    health_address: str = Field(
        "", description="a plaintext HOST:PORT or unix:PATH that serves health checks only; empty: none"
    )

    @property
    def bounds(self) -> Bounds:
        """The bounds of the job queue."""
        return Bounds(
            jobs=self.max_jobs,
            image_bytes=self.max_queued_bytes,
            result_bytes=self.max_stored_bytes,
            known_jobs=self.max_known_jobs,
            pixels=self.max_queued_pixels,
            tenant_share=self.tenant_share,
            tenant_rate=self.tenant_rate,
            tenant_burst=self.tenant_burst,
        )

    @field_validator("publish")
    @classmethod
    def _check_publish(cls, address: str, others: ValidationInfo) -> str:
        is_guarded = others.data.get("tokens") or others.data.get("tls_client_ca")
        if address and not is_loopback(address) and not is_guarded:
            raise ValueError(
                "whoever reaches it may ask for anything: give tokens or tls_client_ca (docs/securing.md), or publish "
                "at 127.0.0.1"
            )
        return address

    @field_validator("max_receiving_bytes")
    @classmethod
    def _check_receiving(cls, total: int, others: ValidationInfo) -> int:
        if total < 2 * (max_request := others.data.get("max_request_bytes", 0)):
            raise ValueError(
                f"must be at least twice max_request_bytes, {2 * max_request}: a connection may have half of it"
            )
        return total

    @field_validator("tenant_rate")
    @classmethod
    def _check_rate(cls, rate: float | None, others: ValidationInfo) -> float | None:
        if rate is not None and others.data.get("tokens") is None:
            raise ValueError("needs tokens: without them there are no tenants")
        return rate
