"""gRPC channel options: bounds on connections that hold before any code of the server sees a call."""

from __future__ import annotations

from typing import Final

from convlens.server.settings import ServerSettings

Options = list[tuple[str, int]]

MAX_STREAMS: Final = 1024
"""Concurrent calls on one connection; a client queues further ones."""
WINDOW: Final = 256 << 10
"""HTTP/2 window of a stream in bytes: a small photo needs no further round trip."""
_COMMON: Final[Options] = [
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a compressed request could expand beyond any bound
    ("grpc.http2.bdp_probe", 0),  # else the window of an unread stream grows to some MiB
    ("grpc.http2.lookahead_bytes", WINDOW),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.keepalive_time_ms", 20_000),  # detects a vanished peer within 30 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # else gRPC waits for a minute, despite keepalive_timeout_ms
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
]
PROBES: Final[Options] = [
    *_COMMON,
    ("grpc.max_receive_message_length", 64 << 10),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_allowed_incoming_connections", 64),
]
"""Options of the health_address."""


def options(settings: ServerSettings) -> Options:
    """Return the options of the main address.

    gRPC accepts messages of up to twice the limit, so that the server can reject them with both sizes and the field.
    Beyond that gRPC rejects a message by its length alone.
    """
    return [
        *_COMMON,
        ("grpc.max_receive_message_length", 2 * settings.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.so_reuseport", int(settings.reuse_port)),
    ]
