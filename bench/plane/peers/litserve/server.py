"""LitServe: a FastAPI server and two worker processes; batches of up to 32 that wait 2 ms for company.

Bodies travel as they are, in place of the JSON with base64 that is usual there.
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
        """Nothing to load."""

    def decode_request(self, request: Bytes) -> bytes:
        """As it came."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """As they came."""
        return inputs

    def predict(self, x: list[bytes]) -> list[bytes]:
        """A batch."""
        return [answer(body) for body in x]

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """One by one."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """As it is."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    api = Zeros(max_batch_size=32, batch_timeout=0.002)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
