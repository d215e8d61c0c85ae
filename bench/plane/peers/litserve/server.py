"""LitServe: a FastAPI server and two worker processes; batches of up to 32, which wait up to 2 ms.

Bodies are sent unchanged, in place of the usual JSON with base64.
"""

import sys
from typing import Annotated, Any

import litserve
from fastapi import Body, Response

from bench.plane.work import answer

Bytes = Annotated[bytes, Body(media_type="application/octet-stream")]


class Zeros(litserve.LitAPI):
    """The null model. Its annotations are read at run time."""

    def setup(self, device: Any) -> None:
        """Load nothing."""

    def decode_request(self, request: Bytes) -> bytes:
        """Return the body unchanged."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Return the bodies as the batch."""
        return inputs

    def predict(self, x: list[bytes]) -> list[bytes]:
        """Return the maps of a batch."""
        return [answer(body) for body in x]

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Return the maps of the batch."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Return the map unchanged."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    api = Zeros(max_batch_size=32, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
