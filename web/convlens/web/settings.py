"""The settings of the gateway, and the bounds that are not settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from convlens.client import TLS

DEFAULT_PORT: Final = 8080
PROBE_PATH: Final = "/healthz"
"""Where probes ask whether the gateway runs: answered under any name, and however many requests are under way."""
DEFAULT_MAX_BODY_BYTES: Final = 64 << 20
MAX_REQUESTS: Final = 256
"""Requests under way at once, event streams included."""
MAX_CONNECTIONS: Final = 1024
MAX_HELD_BYTES: Final = 512 << 20
"""Bytes of request bodies and results held at once."""
MAX_IMAGES: Final = 1024
"""Files of one form; the server's own limit on the images of a job is lower by default."""
MAX_FIELD_BYTES: Final = 128 << 10
"""Bytes of a form's field that is no file, and of the JSON that describes a job."""
HEADER_SECONDS: Final = 10.0
"""How long the head of a request may take."""
IDLE_SECONDS: Final = 10.0
"""How long a body may pause while it is received."""
BODY_SECONDS: Final = 120.0
"""How long a body may take."""
SEND_SECONDS: Final = 60.0
"""How long a chunk of a response may wait for a client that does not read."""
MIN_BYTES_PER_SECOND: Final = 64 << 10
"""How fast a client has to read a large response, on average."""
CHUNK_BYTES: Final = 64 << 10
MAX_DRAWN_PIXELS: Final = 3_000_000
"""Width × height of the pictures that the gateway draws; larger photos are reduced."""
DRAIN_SECONDS: Final = 2
"""How long responses under way may go on after SIGTERM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """What a gateway calls, and how it is reached."""

    server: str = "localhost:50051"
    """HOST:PORT of the gRPC server."""
    tls: TLS | None = None
    connect_timeout: float = 10.0
    """Seconds after which a server that was never reached is given up."""
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """0 picks a free one."""
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    """Bytes of one request's body."""
    allowed_hosts: tuple[str, ...] = ()
    """Names, beside those of the loopback interface, by which browsers may call the gateway."""
