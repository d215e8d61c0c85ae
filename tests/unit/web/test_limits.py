"""Bounds: bodies that are too large or too slow, too many requests, parts and connections, clients that do not read."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack

import pytest
from gateways import gateway, png
from processes import until

from convlens.client.testing import serve
from convlens.web import http_server, limits, settings

LIMIT = 200_000
HEAD = b'--form\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.fixture
def small(target):
    """A gateway that takes bodies of LIMIT bytes."""
    with gateway(target, max_body_bytes=LIMIT) as http:
        yield http


def connect(http):
    """A connection to a gateway."""
    return socket.create_connection((http.base_url.host, http.base_url.port), timeout=30)


def head(*headers, path="/v1/visualize", method="POST"):
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: multipart/form-data; boundary=form"]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def response(connection):
    """The status and the JSON of the response on a connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1 << 16) or pytest.fail(f"the connection ended after {received!r}")
    start, _, body = received.partition(b"\r\n\r\n")
    length = int(start.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(1 << 16)
    return int(start.split()[1]), json.loads(body)


def test_a_body_announced_as_too_large_is_refused_before_it_is_sent(small):
    with connect(small) as connection:
        connection.sendall(head(f"Content-Length: {LIMIT + 1}"))
        status, problem = response(connection)
    assert (status, problem["reason"]) == (413, "REQUEST_TOO_LARGE")
    assert str(LIMIT) in problem["detail"]


def test_a_body_of_unknown_size_is_refused_once_it_is_too_large(small):
    with connect(small) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        for chunk in (HEAD, *[b"x" * 50_000] * 4):
            connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        status, problem = response(connection)
    assert (status, problem["reason"]) == (413, "REQUEST_TOO_LARGE")


def test_a_body_within_the_limit_is_taken_however_it_is_sent(small):
    def chunks():
        yield HEAD + png()
        yield b"\r\n--form--\r\n"

    for content in (HEAD + png() + b"\r\n--form--\r\n", chunks()):
        headers = {"Content-Type": "multipart/form-data; boundary=form"}
        assert small.post("/v1/visualize", content=content, headers=headers).status_code == 200


def test_the_bytes_of_all_bodies_together_are_bounded(target, monkeypatch):
    monkeypatch.setattr("convlens.web.app.MAX_HELD_BYTES", 0)  # then it is twice max_body_bytes
    budgets = []

    def new_budget(total):
        budgets.append(limits.ByteBudget(total))
        return budgets[-1]

    monkeypatch.setattr("convlens.web.app.ByteBudget", new_budget)
    with gateway(target, max_body_bytes=LIMIT) as http, connect(http) as first, connect(http) as second:
        for connection in (first, second):
            connection.sendall(head(f"Content-Length: {LIMIT}") + HEAD + bytes(LIMIT - len(HEAD) - 1))
        until(lambda: budgets[0]._remaining == 2)
        refused = {"image": ("a.png", png())}
        problem = http.post("/v1/visualize", files=refused)
        assert problem.status_code == 503
        assert (problem.json()["reason"], problem.headers["retry-after"]) == ("SERVER_FULL", "1")
        assert http.get("/v1/server").status_code == 200
        first.close()
        until(lambda: http.post("/v1/visualize", files=refused).status_code == 200)


def test_bytes_that_are_only_announced_count_for_nothing(target, monkeypatch):
    monkeypatch.setattr("convlens.web.app.MAX_HELD_BYTES", 0)
    with gateway(target, max_body_bytes=LIMIT) as http, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connect(http)).sendall(head(f"Content-Length: {LIMIT}") + HEAD)
        assert http.post("/v1/visualize", files={"image": ("a.png", png())}).status_code == 200


def test_a_result_is_held_until_its_reader_has_it(target, monkeypatch):
    """Two results of 12.8 MB fit into the bytes that may be held, as five copies each; a third does not."""
    monkeypatch.setattr("convlens.web.app.MAX_HELD_BYTES", 190_000_000)
    form = HEAD + png() + b'\r\n--form\r\nContent-Disposition: form-data; name="request"\r\n\r\n'
    form += b'{"visualizations": [{"type": "activations", "layers": ["block1_conv1"]}]}\r\n--form--\r\n'
    files = {"image": ("a.png", png())}
    with gateway(target) as http, connect(http) as first, connect(http) as second:
        for connection in (first, second):
            connection.sendall(head(f"Content-Length: {len(form)}") + form)
            assert connection.recv(12) == b"HTTP/1.1 200"
        described = {"request": '{"visualizations": [{"type": "activations", "layers": ["block1_conv2"]}]}'}
        refused = http.post("/v1/visualize", files=files, data=described)
        assert (refused.status_code, refused.json()["reason"]) == (503, "SERVER_FULL")
        first.close()
        until(lambda: http.post("/v1/visualize", files=files, data=described).status_code == 200)


def test_a_health_probe_is_answered_at_the_bound_of_requests(target, monkeypatch):
    monkeypatch.setattr(limits, "MAX_REQUESTS", 0)
    with gateway(target) as http:
        assert http.get("/v1/server").status_code == 503
        assert http.get("/healthz").status_code == 200


def test_a_result_larger_than_all_that_may_be_held_is_refused(target, monkeypatch):
    monkeypatch.setattr("convlens.web.app.MAX_HELD_BYTES", 0)
    described = {"request": '{"visualizations": [{"type": "activations", "layers": ["block1_conv1"]}]}'}
    with gateway(target, max_body_bytes=LIMIT) as http:
        files = {"image": ("a.png", png())}
        address = http.post("/v1/jobs", files=files, data=described).headers["location"]
        for refused in (http.post("/v1/visualize", files=files, data=described), http.get(f"{address}/result")):
            assert (refused.status_code, refused.json()["reason"]) == (413, "RESULT_TOO_LARGE")
        assert http.post("/v1/visualize", files=files).status_code == 200


@pytest.mark.parametrize("name", ["IDLE_SECONDS", "BODY_SECONDS"])
def test_a_slow_sender_is_ended(target, monkeypatch, name):
    monkeypatch.setattr(limits, name, 0.5)
    with gateway(target) as http, connect(http) as connection:
        connection.sendall(head("Content-Length: 1000") + HEAD)
        sent = threading.Event()

        def drip():
            while not sent.wait(0.1 if name == "BODY_SECONDS" else 60):
                connection.sendall(b"x")

        sender = threading.Thread(target=drip)
        sender.start()
        try:
            status, problem = response(connection)
        finally:
            sent.set()
            sender.join()
        assert (status, problem["reason"]) == (408, "REQUEST_INCOMPLETE")


@pytest.mark.parametrize("sent", [b"", b"POST /v1/vis", head("Content-Length: 3")[:-2]])
def test_a_connection_without_the_head_of_a_request_is_closed(target, monkeypatch, sent):
    monkeypatch.setattr(http_server, "HEADER_SECONDS", 0.3)
    with gateway(target) as http, connect(http) as connection:
        connection.sendall(sent)
        assert ended(connection)


def test_a_second_head_must_not_take_for_ever_either(target, monkeypatch):
    monkeypatch.setattr(http_server, "HEADER_SECONDS", 0.3)
    with gateway(target) as http, connect(http) as connection:
        connection.sendall(head(path="/v1/server", method="GET"))
        assert response(connection)[0] == 200
        connection.sendall(b"GET /v1/")
        assert ended(connection)


def ended(connection):
    """True if the gateway closes the connection without a word."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_long_request_is_not_taken_for_a_slow_one(monkeypatch):
    monkeypatch.setattr(http_server, "HEADER_SECONDS", 0.1)
    with serve(delay=1) as target, gateway(target) as http:
        assert http.post("/v1/visualize", files={"image": ("a.png", png())}).status_code == 200


def test_connections_are_bounded(target, monkeypatch):
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 3)
    with gateway(target) as http, ExitStack() as stack:
        connections = [stack.enter_context(connect(http)) for _ in range(3)]
        with connect(http) as surplus:
            assert ended(surplus)
        connections.pop().close()
        until(lambda: is_served(http))


def is_served(http):
    """True if a new connection gets a response."""
    with connect(http) as connection:
        try:
            connection.sendall(head("Connection: close", path="/healthz", method="GET"))
            return connection.recv(12) == b"HTTP/1.1 200"
        except (ConnectionResetError, BrokenPipeError):
            return False


def test_requests_under_way_are_bounded(monkeypatch):
    monkeypatch.setattr(limits, "MAX_REQUESTS", 2)
    server = serve(delay=3)
    with server as target, gateway(target) as http, ExitStack() as stack:
        for i in range(2):
            connection = stack.enter_context(connect(http))
            body = HEAD + png(seed=i) + b"\r\n--form--\r\n"
            connection.sendall(head(f"Content-Length: {len(body)}") + body)
        until(lambda: len(server.requests) == 2)
        refused = http.get("/v1/server")
        assert (refused.status_code, refused.json()["reason"]) == (503, "SERVER_FULL")
        assert refused.headers["retry-after"] == "1"
        until(lambda: http.get("/v1/server").status_code == 200)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([("image", ("a.png", b"x"))] * (settings.MAX_IMAGES + 1), "Too many files"),
        ([("request", (None, "{}"))] * 20, "Too many fields"),
        ([("request", (None, " " * (settings.MAX_FIELD_BYTES + 1)))], "exceeded maximum size"),
    ],
)
def test_parts_of_a_form_are_bounded(http, parts, says):
    problem = http.post("/v1/visualize", files=parts).json()
    assert problem["status"] == 400
    assert says in problem["detail"]


def test_a_client_that_does_not_read_is_disconnected(target, monkeypatch, caplog):
    monkeypatch.setattr(limits, "SEND_SECONDS", 0.5)
    form = HEAD + png() + b'\r\n--form\r\nContent-Disposition: form-data; name="request"\r\n\r\n'
    form += b'{"visualizations": [{"type": "activations", "layers": ["block1_conv1"]}]}\r\n--form--\r\n'  # 17 MB
    with gateway(target) as http, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((http.base_url.host, http.base_url.port))
        connection.settimeout(30)
        connection.sendall(head(f"Content-Length: {len(form)}") + form)
        assert connection.recv(12) == b"HTTP/1.1 200"
        until(lambda: "a client does not read its response" in caplog.text)
        received = 0
        while data := connection.recv(1 << 20):
            received += len(data)
        assert received < 15_000_000
