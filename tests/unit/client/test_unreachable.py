"""A server that is not reached: given up after connect_timeout, with the reason in plain words. All on real sockets."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from unresponsive_servers import dropping, refusing, replying, silent, silent_dns

from convlens.client import (
    TLS,
    AsyncClient,
    Client,
    DeadlineExceeded,
    GradCAM,
    InvalidArgument,
    Unauthenticated,
    Unavailable,
)
from convlens.local.certificates import ensure_certificates
from convlens.v1 import model_pb2, model_pb2_grpc

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")
PHOTO = np.zeros((2, 2, 3), np.uint8)
WEB = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


class Models(model_pb2_grpc.ModelServiceServicer):
    """A server that says its version, once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()

    def GetServerInfo(self, request, context):
        self.may.wait(20)
        return model_pb2.GetServerInfoResponse(version="0.1.0")


@contextlib.contextmanager
def serving(credentials=None, port=0):
    service = Models()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    model_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    address = f"127.0.0.1:{port}"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield service, port
    finally:
        service.may.set()
        server.stop(None).wait()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return ensure_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Certificates of another authority."""
    return ensure_certificates(tmp_path_factory.mktemp("other"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def credentials(made, *, mutual=False):
    pair = (made.server.key.read_bytes(), made.server.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], made.ca.certificate.read_bytes() if mutual else None, mutual)


def context(made, *, mutual=False):
    """What a server of OpenSSL's makes TLS with."""
    made_of = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made_of.load_cert_chain(made.server.certificate, made.server.key)
    if mutual:
        made_of.load_verify_locations(made.ca.certificate)
        made_of.verify_mode = ssl.CERT_REQUIRED
    return made_of


def unreached(target, seconds=0.3, **options):
    """The error that a call ends with, about so many seconds after it began."""
    began = time.monotonic()
    with Client(target, connect_timeout=seconds, **options) as client, pytest.raises(Unavailable) as caught:
        client.server_info()
    assert time.monotonic() - began < seconds + 3
    assert caught.value.reason == "SERVER_UNREACHABLE"
    assert caught.value.message.startswith(f"no Convlens server answers at {target}, after ")
    return caught.value.message


def test_nothing_listens():
    with refusing() as port:
        assert ": connection refused; is the server running (`convlens up`)" in unreached(f"127.0.0.1:{port}")


def test_the_name_does_not_resolve():
    assert ": the name nowhere.invalid does not resolve; " in unreached("nowhere.invalid:50051")


def test_the_dns_server_is_silent():
    with silent_dns() as port:
        message = unreached(f"dns://127.0.0.1:{port}/far.example:50051")
    assert ": no answer from the DNS servers about far.example; " in message


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("nobody", [silent, dropping])
def test_nothing_comes_back(nobody, tls, made):
    with nobody() as port:
        message = unreached(f"127.0.0.1:{port}", tls=TLS(made.ca.certificate) if tls else None)
    assert ": no reply; a firewall may drop what is sent, or what listens there hangs" in message


def test_a_socket_that_is_not_there(tmp_path):
    assert ": there is no such socket; is the server running?" in unreached(f"unix:{tmp_path}/gone")


@pytest.mark.parametrize("by", ["gRPC", "OpenSSL"])
def test_plaintext_at_a_tls_port(made, by):
    with serving(credentials(made)) as (_, port), replying(b"", context(made)) as other_port:
        message = unreached(f"localhost:{port if by == 'gRPC' else other_port}")
    assert ": the connection was closed at once; the server may want TLS (tls=True, --tls)" in message


def test_tls_at_a_plaintext_port(made):
    with serving() as (_, port):
        message = unreached(f"localhost:{port}", tls=TLS(made.ca.certificate))
    assert ": what listens there speaks no TLS; leave out tls" in message


@pytest.mark.parametrize("by", ["gRPC", "OpenSSL"])
def test_no_certificate_where_the_server_demands_one(made, other, by):
    strict = context(made, mutual=True)
    strict.set_alpn_protocols(["h2"])
    with serving(credentials(made, mutual=True)) as (_, port), replying(b"", strict) as other_port:
        target = f"localhost:{port if by == 'gRPC' else other_port}"
        without = unreached(target, tls=TLS(made.ca.certificate))
        another = unreached(target, tls=TLS(made.ca.certificate, other.client.certificate, other.client.key))
    assert ": the server ended the TLS handshake; it may demand a certificate of this client" in without
    assert ": the server ended the TLS handshake; it may not trust this client's certificate" in another


def test_a_server_that_is_not_trusted_is_not_tried_again(made, other):
    with serving(credentials(made)) as (_, port):
        for tls in (True, TLS(other.ca.certificate)):
            began = time.monotonic()
            with Client(f"localhost:{port}", tls=tls) as client, pytest.raises(Unauthenticated) as caught:
                client.server_info()
            assert caught.value.reason == "SERVER_UNTRUSTED"
            assert time.monotonic() - began < 5


@pytest.mark.parametrize("tls", [False, True])
def test_a_web_server(made, tls):
    with replying(WEB, context(made) if tls else None) as port:
        message = unreached(f"localhost:{port}", tls=TLS(made.ca.certificate) if tls else None)
    assert ": a web server listens there, not a gRPC server; is this the right port?" in message


def test_a_server_of_another_kind():
    with replying(b"-ERR unknown command 'PRI'\r\n") as port:
        assert ": what listens there is no gRPC server; " in unreached(f"localhost:{port}")


# --- proxies ---


@pytest.mark.parametrize(
    ("reply", "cause"),
    [(b"HTTP/1.1 403 Forbidden\r\n\r\n", "the proxy refused to connect"), (b"", "the connection was closed at once")],
)
def test_a_proxy_of_the_environment_is_named(monkeypatch, reply, cause):
    with replying(reply) as port:
        monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")
        message = unreached("far.example:50051")
    assert f": {cause}" in message
    assert f"through a proxy named in the environment, http_proxy=127.0.0.1:{port} (no_proxy=far.example " in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("target", "environment"),
    [
        ("far.invalid:50051", {}),
        ("far.invalid:50051", {"https_proxy": "nonsense"}),
        ("far.invalid:50051", {"grpc_proxy": "PROXY", "no_proxy": "a.b, INVALID"}),
        ("far.invalid:50051", {"http_proxy": "PROXY", "no_grpc_proxy": ".invalid", "no_proxy": ""}),
        ("240.1.2.3:50051", {"https_proxy": "PROXY", "no_proxy": "10.0.0.0/8,240.0.0.0/4"}),
        ("localhost:PORT", {"http_proxy": "PROXY"}),
        ("127.0.0.1:PORT", {"http_proxy": "PROXY"}),
    ],
    ids=str,
)
def test_a_proxy_that_gRPC_does_not_take_is_not_named(monkeypatch, target, environment):
    with refusing() as port:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.replace("PROXY", f"http://127.0.0.1:{port}"))
        assert "proxy" not in unreached(target.replace("PORT", str(port)), 0.2)


# --- how long ---


async def test_the_asynchronous_client_gives_up_likewise():
    with refusing() as port, silent() as mute:
        for number, cause in ((port, "connection refused"), (mute, "no reply")):
            began = time.monotonic()
            async with AsyncClient(f"127.0.0.1:{number}", connect_timeout=0.5) as client:
                with pytest.raises(Unavailable, match=cause) as caught:
                    await client.grad_cam(PHOTO)
            assert caught.value.reason == "SERVER_UNREACHABLE"
            assert time.monotonic() - began < 3


@pytest.mark.parametrize("nobody", [refusing, silent])
async def test_the_shorter_of_both_times_rules(nobody):
    with nobody() as port:
        for timeout, connect_timeout in ((0.4, 60.0), (60.0, 0.4)):
            began = time.monotonic()
            options = {"timeout": timeout, "connect_timeout": connect_timeout}
            with (
                Client(f"127.0.0.1:{port}", **options) as client,
                pytest.raises(Unavailable, match=r"connection refused|no reply") as caught,
            ):
                client.saliency(PHOTO)
            assert caught.value.reason == "SERVER_UNREACHABLE"
            async with AsyncClient(f"127.0.0.1:{port}", **options) as client:
                with pytest.raises(Unavailable, match=r"connection refused|no reply"):
                    await client.saliency(PHOTO)
            assert time.monotonic() - began < 5


async def test_a_server_that_is_reached_and_slow_has_the_time_of_the_call():
    with serving() as (service, port):
        target = f"127.0.0.1:{port}"
        service.may.clear()
        timer = threading.Timer(1.0, service.may.set)
        timer.start()
        with Client(target, connect_timeout=0.3) as client:
            assert client.server_info().version == "0.1.0"
        service.may.clear()
        with Client(target, timeout=0.4) as client, pytest.raises(DeadlineExceeded):
            client.server_info()
        async with AsyncClient(target, timeout=0.4) as client:
            with pytest.raises(DeadlineExceeded):
                await client.server_info()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_server_that_was_reached_once_is_waited_for_as_long_as_the_call_may_take(kind):
    async def ask(client):
        info = client.server_info()
        return (await info if kind is AsyncClient else info).version

    with serving() as (_, port):
        client = kind(f"127.0.0.1:{port}", timeout=30, connect_timeout=0.2)
        assert await ask(client) == "0.1.0"
    ready = threading.Event()

    def later():
        time.sleep(1.0)  # five times as long as a server that was never reached has
        with serving(port=port):
            ready.wait(30)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert await ask(client) == "0.1.0"
    finally:
        ready.set()
        thread.join()
        closing = client.close()
        if kind is AsyncClient:
            await closing


def test_every_image_of_map_has_the_reason():
    with refusing() as port, Client(f"127.0.0.1:{port}", connect_timeout=0.3) as client:
        outcomes = list(client.map([PHOTO] * 3, [GradCAM()], errors="return"))
    assert [error.reason for error in outcomes] == ["SERVER_UNREACHABLE"] * 3


# --- addresses ---


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("localhost", "has no port; the server's own is 50051: localhost:50051"),
        ("http://localhost:50051", "begins with http://, but this is no URL; give localhost:50051 alone; allowed"),
        ("https://a.example:443/x", "give a.example:443 alone, and tls=True .--tls. for TLS"),
        ("grpc://user@a.example:1", "give a.example:1 alone"),
        ("xds:///service", "begins with xds://"),
        ("localhost:", "has the port ''"),
        ("localhost:0", "has the port '0'; a port is a number in 1…65535"),
        ("localhost:65536", "has the port '65536'"),
        ("localhost:grpc", "has the port 'grpc'"),
        ("localhost:٣", "has the port '٣'"),
        (":50051", "has no host"),
        ("local host:50051", "has spaces"),
        ("localhost:50051\n", "has spaces"),
        ("localhost:50051/path", "has more than a host and a port"),
        ("user@localhost:50051", "has more than a host and a port"),
        ("local,host:50051", "has the host 'local,host'"),
        ("::1:50051", r"an IPv6 address needs brackets: \[::1\]:50051"),
        ("2001:db8::1", r"needs brackets and a port: \[2001:db8::1\]:50051"),
        ("[::1]", r"has no port; the server's own is 50051: \[::1\]:50051"),
        ("[localhost]:50051", "has no IPv6 address in its brackets"),
        ("[::1:50051", "has no IPv6 address in its brackets"),
        ("dns:///localhost", "has no port"),
        ("ipv4:127.0.0.1:50051,127.0.0.2", "has no port"),
        ("unix:", "names no socket"),
        (["localhost:50051"], "is a list, not a string"),
        (None, "is a NoneType, not a string"),
        (b"localhost:50051", "is a bytes, not a string"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_address_that_is_none_is_refused_when_the_client_is_made(kind, target, message):
    with pytest.raises(InvalidArgument, match=message) as caught:
        kind(target)
    assert caught.value.field == "target"
    assert "allowed: HOST:PORT such as localhost:50051" in caught.value.message


@pytest.mark.parametrize(
    "target",
    ["localhost:50051", "a-b_c.example.:1", "10.0.0.1:65535", "[::1]:50051", "[fe80::1%eth0]:1", "dns:///a.example:1",
     "dns:a.example:1", "dns://8.8.8.8/a.example:1", "ipv4:127.0.0.1:1,127.0.0.2:1", "ipv6:[::1]:1", "unix:relative",
     "unix:///run/a socket", "unix-abstract:convlens", "bücher.example:1"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_every_kind_of_address_is_accepted(kind, target):
    assert kind(target)


def test_each_kind_of_address_reaches_the_server(tmp_path):
    with serving() as (_, port):
        for target in (f"localhost:{port}", f"127.0.0.1:{port}", f"dns:///localhost:{port}", f"ipv4:127.0.0.1:{port}"):
            with Client(target) as client:
                assert client.server_info().version == "0.1.0"
