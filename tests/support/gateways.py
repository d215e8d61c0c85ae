"""A gateway on a free port, in a thread of this process: over real HTTP, with a client to call it."""

from __future__ import annotations

import base64
import contextlib
import io
import threading

import httpx
import numpy as np
from PIL import Image

from convlens.web.http_server import HttpServer
from convlens.web.settings import WebSettings


@contextlib.contextmanager
def gateway(server, **settings):
    """Serve a gateway of the gRPC server `server`, and give an HTTP client of it."""
    http_server = HttpServer(WebSettings(server=server, port=0, **settings))
    thread = threading.Thread(target=http_server.run_until_signal)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://{http_server.address}", timeout=60) as client:
            yield client
    finally:
        http_server.should_exit = True
        thread.join()


def png(height=60, width=80, seed=0):
    """The bytes of a PNG file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def arrays(response):
    """The arrays of a result as JSON."""
    return {
        array["name"]: np.frombuffer(base64.b64decode(array["data"]), array["dtype"]).reshape(array["shape"])
        for array in response.json()["arrays"]
    }
