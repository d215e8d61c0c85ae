"""mosec: a Rust HTTP server and a number of Python workers; batches of up to 32, which wait up to 2 ms."""

from __future__ import annotations

import sys

from mosec import Server, Worker

from bench.plane.work import answer


class Zeros(Worker):
    """The null model, bytes in and bytes out."""

    def deserialize(self, data: bytes) -> bytes:
        """Return the body unchanged."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """Return the map unchanged."""
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """Return the maps of a batch."""
        return [answer(body) for body in data]


if __name__ == "__main__":
    port, workers = sys.argv[1:3]
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", port, "--log-level", "warning"]
    server = Server()
    server.append_worker(Zeros, num=int(workers), max_batch_size=32, max_wait_time=2)
    server.run()
