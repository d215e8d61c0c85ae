"""A proxy that terminates TLS in front of a plain TCP server."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading

from convlens.local.certificates import Certificates


@contextlib.contextmanager
def tls_proxy(port: int, certificates: Certificates, *, client_certificates: bool):
    """Terminate TLS on a free port of loopback for the server at `port`, and yield the free port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca.certificate)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    context.verify_mode = ssl.CERT_REQUIRED if client_certificates else ssl.CERT_NONE
    loop = asyncio.new_event_loop()

    async def forward(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def handle(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(forward(reader, inner_writer), forward(inner_reader, writer))

    async def serve():
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
        return server.sockets[0].getsockname()[1]

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(serve(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
