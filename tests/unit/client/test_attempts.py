"""When a call is tried again, and what its caller is told when time runs out."""

from __future__ import annotations

import contextlib
import types

import grpc
import pytest

from convlens.client import DeadlineExceeded, Saliency, Unavailable
from convlens.client.calls import Answer, Attempts, job_request
from convlens.client.connection import Connection


class Failed(grpc.RpcError):
    """A call that ended with a bare status."""

    def __init__(self, code, details="details"):
        self.code = lambda: code
        self.details = lambda: details
        self.trailing_metadata = tuple


@pytest.fixture
def attempts():
    return Attempts(Connection("localhost:1", None, None), 60)


def test_time_that_ran_out_while_it_was_tried_again_does_not_hide_the_reason(attempts):
    assert attempts.delay_after(Failed(grpc.StatusCode.UNAVAILABLE)) > 0
    with pytest.raises(Unavailable, match="no Convlens server answers"):
        attempts.delay_after(Failed(grpc.StatusCode.DEADLINE_EXCEEDED))


def test_the_delays_grow_to_two_seconds_and_end_with_the_time_there_is(monkeypatch):
    now = 0.0
    monkeypatch.setattr("convlens.client.calls.time", types.SimpleNamespace(monotonic=lambda: now))
    attempts, delays = Attempts(Connection("localhost:1", None, None), 60), []
    with contextlib.suppress(Unavailable):
        while True:
            delays.append(attempts.delay_after(Failed(grpc.StatusCode.UNAVAILABLE)))
            now += delays[-1]
    assert 58 <= now < 60
    for n, delay in enumerate(delays):
        longest = min(2.0, 0.1 * 2**n)
        assert longest / 2 <= delay <= longest


def test_the_reason_is_the_latest_but_for_a_refusal_by_another_address_of_the_same_try(monkeypatch):
    now = 0.0
    monkeypatch.setattr("convlens.client.calls.time", types.SimpleNamespace(monotonic=lambda: now))
    connection = Connection("localhost:1", None, None, 60)
    attempts, said = Attempts(connection, 60), []
    for now, words in (  # noqa: B007 - the clock
        (1.0, "Connection refused"),
        (1.1, "Endpoint closing"),
        (1.2, "Connection refused"),
        (9.0, "Connection refused"),
        (9.5, "No route to host"),
        (19.0, "Endpoint closing"),
    ):
        attempts.delay_after(Failed(grpc.StatusCode.UNAVAILABLE, f"failed to connect to all addresses; {words}"))
        said.append(attempts._told.message.partition(": ")[2].partition(";")[0])
    no_route = "no route to localhost"
    assert said == ["connection refused", "no reply", "no reply", "connection refused", no_route, "no reply"]


def test_time_that_ran_out_at_once_is_the_reason_itself(attempts):
    with pytest.raises(DeadlineExceeded):
        attempts.delay_after(Failed(grpc.StatusCode.DEADLINE_EXCEEDED))


def test_a_server_too_old_for_whole_answers_is_asked_for_a_stream():
    class Stubs:
        visualize_unary_bytes, visualize_bytes = "unary", "stream"

    request = job_request(
        b"\xff\xd8\xff", [Saliency()], model="", target=None, scored_layer="", predictions=None, request_id=None,
        priority="normal", fresh=False, timeout=None,
    )  # fmt: skip
    answer = Answer(Connection("localhost:1", None, None), request, 60)
    assert answer.next_call(Stubs)[0] == "unary"
    assert answer.delay_after(Failed(grpc.StatusCode.UNIMPLEMENTED)) == 0
    assert answer.next_call(Stubs)[0] == "stream"
    assert answer.delay_after(Failed(grpc.StatusCode.UNAVAILABLE)) > 0
    assert answer.next_call(Stubs)[0] == "stream"
