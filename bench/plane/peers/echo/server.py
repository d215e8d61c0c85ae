"""Bare gRPC: receives images, returns maps of zeros, and stores nothing. Messages are bytes, not protobuf."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import uvloop

from bench.plane.work import FLOATS, RAW_BYTES, answer

SERVICE: Final = "bench.Echo"
CHUNK: Final = 1 << 20
UNLIMITED: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


async def single(request: bytes, _: Any) -> bytes:
    """Return the map of one image."""
    return answer(request)


async def images(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    """Yield the maps of each pack of raw images."""
    async for request in requests:
        yield FLOATS.tobytes() * (len(request) // RAW_BYTES)


async def read(request: bytes, _: Any) -> AsyncIterator[bytes]:
    """Send the requested number of bytes."""
    left = int(request)
    chunk = bytes(CHUNK)
    while left:
        yield chunk[:left] if left < CHUNK else chunk
        left -= min(left, CHUNK)


async def serve(port: str) -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server(options=UNLIMITED)
    handlers = {
        "Single": grpc.unary_unary_rpc_method_handler(single),
        "Map": grpc.stream_stream_rpc_method_handler(images),
        "Read": grpc.unary_stream_rpc_method_handler(read),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
