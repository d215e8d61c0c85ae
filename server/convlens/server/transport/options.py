"""gRPC's own options: what a connection may cost before any code of the server sees a call."""

from __future__ import annotations

from typing import Final

from convlens.server.settings import ServerSettings

Options = list[tuple[str, int]]

STREAMS: Final = 1024
"""Calls at once on one connection; a client waits with more."""
WINDOW: Final = 256 << 10
"""Bytes of a call that are received before it is read: a small photo needs no round trip more."""
_EVERY: Final[Options] = [
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: 64 KiB received would be as much as a request may have
    ("grpc.http2.bdp_probe", 0),  # or the window of a stream that is not read grows to some MiB
    ("grpc.http2.lookahead_bytes", WINDOW),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.keepalive_time_ms", 20_000),  # a caller that is gone and did not say so shows within 30 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # or gRPC waits for a minute, whatever keepalive_timeout_ms says
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
]
PROBES: Final[Options] = [
    *_EVERY,
    ("grpc.max_receive_message_length", 64 << 10),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_allowed_incoming_connections", 64),
]
"""Of the address that answers health checks alone."""


def options(settings: ServerSettings) -> Options:
    """Of the address that serves.

    What is larger than a request may be, up to twice as large, is received: the server's own refusal names both sizes
    and the field, gRPC's does not. It refuses what is larger still when it has read the length.
    """
    return [
        *_EVERY,
        ("grpc.max_receive_message_length", 2 * settings.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.so_reuseport", int(settings.reuse_port)),
    ]
