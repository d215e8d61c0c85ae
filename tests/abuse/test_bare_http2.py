"""Callers that speak HTTP/2 by hand: what no gRPC library would send, and windows that never open."""

from __future__ import annotations

import itertools
import signal
import socket
import struct

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from half_sent import END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, _frame
from neighbours import Neighbour
from processes import durable_valkey, running, until

from convlens.local.valkey import free_port

DATA = 0
INITIAL_WINDOW = 4
SERVING = health_pb2.HealthCheckResponse.SERVING


class Bare:
    """One connection, whose peer may send `window` bytes of each answer."""

    def __init__(self, target, window=65_535) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.sendall(PREFACE + _frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, window)))
        self._next = 1

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()

    def call(self, path: bytes) -> None:
        """A whole call with an empty message."""
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"convlens"),
                  (b"content-type", b"application/grpc"), (b"te", b"trailers")]  # fmt: skip
        block = b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)
        number, self._next = self._next, self._next + 2
        self._socket.sendall(_frame(HEADERS, END_HEADERS, number, block) + _frame(DATA, END_STREAM, number, bytes(5)))

    def answer(self) -> bytes:
        """The next bytes that the server sends."""
        return self._socket.recv(1 << 16)


def status(target, name=""):
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status


PATHS = [b"/\xff", b"/convlens.v1.JobService/\xc3", b"\xff", b"/grpc.health.v1.Health/\xffWatch"]


def test_a_path_that_is_no_text_ends_its_call_and_nothing_else(start_service):
    probe = f"127.0.0.1:{free_port()}"
    service = start_service(health_address=probe)
    service.worker("null=null")
    process, target = service.server()
    with Neighbour(target) as neighbour:
        for address, path in itertools.product((target, probe), PATHS):
            with Bare(address) as bare:
                for _ in range(3):
                    bare.call(path)
                until(lambda bare=bare: b"Method not found" in bare.answer())
            assert status(address) == SERVING
        neighbour.call()
    assert not neighbour.errors
    assert process.poll() is None


@pytest.fixture
def alone(tmp_path):
    """A service whose Valkey no other one uses."""
    (tmp_path / "valkey").mkdir()
    with durable_valkey(tmp_path / "valkey") as valkey, running(tmp_path, valkey, drain_grace=1) as service:
        yield service


def test_who_watches_health_and_does_not_read_freezes_nobody(alone):
    worker = alone.worker("null=null")
    process, target = alone.server()
    with Bare(target, window=0) as bare:
        for _ in range(100):
            bare.call(b"/grpc.health.v1.Health/Watch")
        assert status(target) == SERVING
        worker.send_signal(signal.SIGKILL)
        until(lambda: status(target) != SERVING, 20)
        process.terminate()
        assert process.wait(20) == 0
