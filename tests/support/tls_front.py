"""TLS in front of a plain TCP server, for servers that were built without it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading

from convlens.local.certificates import Certificates


@contextlib.contextmanager
def tls_in_front(port: int, made: Certificates, *, client_certificates: bool):
    """Terminates TLS on a free port of loopback for the server at `port`; gives that port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made.ca.certificate)
    context.load_cert_chain(made.server.certificate, made.server.key)
    context.verify_mode = ssl.CERT_REQUIRED if client_certificates else ssl.CERT_NONE
    started: asyncio.Queue = asyncio.Queue()
    loop = asyncio.new_event_loop()

    async def one_way(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(one_way(reader, inner_writer), one_way(inner_reader, writer))

    async def serve():
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
        await started.put(server.sockets[0].getsockname()[1])

    ready = asyncio.run_coroutine_threadsafe
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    ready(serve(), loop).result(10)
    try:
        yield ready(started.get(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
