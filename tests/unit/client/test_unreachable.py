"""A server that cannot be reached: calls fail after connect_timeout, with the cause. All on real sockets."""

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
    """Replies with its version once `may_reply` is set."""

    def __init__(self) -> None:
        self.may_reply = threading.Event()
        self.may_reply.set()

    def GetServerInfo(self, request, context):
        self.may_reply.wait(20)
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
        service.may_reply.set()
        server.stop(None).wait()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return ensure_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Certificates of another authority."""
    return ensure_certificates(tmp_path_factory.mktemp("other"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def credentials(certificates, *, mutual=False):
    pair = (certificates.server.key.read_bytes(), certificates.server.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], certificates.ca.certificate.read_bytes() if mutual else None, mutual)


def tls_context(certificates, *, mutual=False):
    """The TLS context of an OpenSSL server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    if mutual:
        context.load_verify_locations(certificates.ca.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def unreachable_message(target, seconds=0.3, **options):
    """Call an unreachable server and return the error's message; the error must be raised after about `seconds`."""
    began = time.monotonic()
    with Client(target, connect_timeout=seconds, **options) as client, pytest.raises(Unavailable) as caught:
        client.server_info()
    assert time.monotonic() - began < seconds + 3
    assert caught.value.reason == "SERVER_UNREACHABLE"
    assert caught.value.message.startswith(f"no Convlens server answers at {target}, after ")
    return caught.value.message


def test_a_refused_connection_is_reported():
    with refusing() as port:
        assert ": connection refused; is the server running (`convlens up`)" in unreachable_message(f"127.0.0.1:{port}")


def test_a_name_that_does_not_resolve_is_reported():
    assert ": the name nowhere.invalid does not resolve; " in unreachable_message("nowhere.invalid:50051")


def test_a_silent_dns_server_is_reported():
    with silent_dns() as port:
        message = unreachable_message(f"dns://127.0.0.1:{port}/far.example:50051")
    assert ": no answer from the DNS servers about far.example; " in message


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("unresponsive", [silent, dropping])
def test_a_server_that_sends_no_reply_is_reported(unresponsive, tls, certificates):
    with unresponsive() as port:
        message = unreachable_message(f"127.0.0.1:{port}", tls=TLS(certificates.ca.certificate) if tls else None)
    assert ": no reply; a firewall may drop what is sent, or what listens there hangs" in message


def test_a_missing_unix_socket_is_reported(tmp_path):
    assert ": there is no such socket; is the server running?" in unreachable_message(f"unix:{tmp_path}/gone")


@pytest.mark.parametrize("server", ["gRPC", "OpenSSL"])
def test_plaintext_to_a_tls_port_suggests_tls(certificates, server):
    with serving(credentials(certificates)) as (_, port), replying(b"", tls_context(certificates)) as other_port:
        message = unreachable_message(f"localhost:{port if server == 'gRPC' else other_port}")
    assert ": the connection was closed at once; the server may want TLS (tls=True, --tls)" in message


def test_tls_to_a_plaintext_port_suggests_plaintext(certificates):
    with serving() as (_, port):
        message = unreachable_message(f"localhost:{port}", tls=TLS(certificates.ca.certificate))
    assert ": what listens there speaks no TLS; leave out tls" in message


@pytest.mark.parametrize("server", ["gRPC", "OpenSSL"])
def test_a_missing_or_untrusted_client_certificate_is_reported(certificates, other, server):
    strict = tls_context(certificates, mutual=True)
    strict.set_alpn_protocols(["h2"])
    with serving(credentials(certificates, mutual=True)) as (_, port), replying(b"", strict) as other_port:
        target = f"localhost:{port if server == 'gRPC' else other_port}"
        without = unreachable_message(target, tls=TLS(certificates.ca.certificate))
        another = unreachable_message(
            target, tls=TLS(certificates.ca.certificate, other.client.certificate, other.client.key)
        )
    assert ": the server ended the TLS handshake; it may demand a certificate of this client" in without
    assert ": the server ended the TLS handshake; it may not trust this client's certificate" in another


def test_a_server_that_is_not_trusted_is_not_tried_again(certificates, other):
    with serving(credentials(certificates)) as (_, port):
        for tls in (True, TLS(other.ca.certificate)):
            began = time.monotonic()
            with Client(f"localhost:{port}", tls=tls) as client, pytest.raises(Unauthenticated) as caught:
                client.server_info()
            assert caught.value.reason == "SERVER_UNTRUSTED"
            assert time.monotonic() - began < 5


@pytest.mark.parametrize("tls", [False, True])
def test_a_web_server_is_recognised(certificates, tls):
    with replying(WEB, tls_context(certificates) if tls else None) as port:
        message = unreachable_message(f"localhost:{port}", tls=TLS(certificates.ca.certificate) if tls else None)
    assert ": a web server listens there, not a gRPC server; is this the right port?" in message


def test_a_server_of_another_protocol_is_recognised():
    with replying(b"-ERR unknown command 'PRI'\r\n") as port:
        assert ": what listens there is no gRPC server; " in unreachable_message(f"localhost:{port}")


# --- proxies ---


@pytest.mark.parametrize(
    ("reply", "cause"),
    [(b"HTTP/1.1 403 Forbidden\r\n\r\n", "the proxy refused to connect"), (b"", "the connection was closed at once")],
)
def test_a_proxy_of_the_environment_is_named(monkeypatch, reply, cause):
    with replying(reply) as port:
        monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{port}")
        message = unreachable_message("far.example:50051")
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
def test_a_proxy_that_gRPC_does_not_use_is_not_named(monkeypatch, target, environment):
    with refusing() as port:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.replace("PROXY", f"http://127.0.0.1:{port}"))
        assert "proxy" not in unreachable_message(target.replace("PORT", str(port)), 0.2)


# --- timeouts ---


async def test_the_asynchronous_client_gives_up_likewise():
    with refusing() as port, silent() as silent_port:
        for number, cause in ((port, "connection refused"), (silent_port, "no reply")):
            began = time.monotonic()
            async with AsyncClient(f"127.0.0.1:{number}", connect_timeout=0.5) as client:
                with pytest.raises(Unavailable, match=cause) as caught:
                    await client.grad_cam(PHOTO)
            assert caught.value.reason == "SERVER_UNREACHABLE"
            assert time.monotonic() - began < 3


@pytest.mark.parametrize("unresponsive", [refusing, silent])
async def test_the_shorter_of_both_timeouts_applies(unresponsive):
    with unresponsive() as port:
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


async def test_a_slow_server_that_is_reached_has_the_timeout_of_the_call():
    with serving() as (service, port):
        target = f"127.0.0.1:{port}"
        service.may_reply.clear()
        timer = threading.Timer(1.0, service.may_reply.set)
        timer.start()
        with Client(target, connect_timeout=0.3) as client:
            assert client.server_info().version == "0.1.0"
        service.may_reply.clear()
        with Client(target, timeout=0.4) as client, pytest.raises(DeadlineExceeded):
            client.server_info()
        async with AsyncClient(target, timeout=0.4) as client:
            with pytest.raises(DeadlineExceeded):
                await client.server_info()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_client_that_was_connected_waits_for_its_server_until_the_calls_timeout(kind):
    async def server_version(client):
        info = client.server_info()
        return (await info if kind is AsyncClient else info).version

    with serving() as (_, port):
        client = kind(f"127.0.0.1:{port}", timeout=30, connect_timeout=0.2)
        assert await server_version(client) == "0.1.0"
    finished = threading.Event()

    def restart_server():
        time.sleep(1.0)  # five times connect_timeout, which applies to a first connection only
        with serving(port=port):
            finished.wait(30)

    thread = threading.Thread(target=restart_server)
    thread.start()
    try:
        assert await server_version(client) == "0.1.0"
    finally:
        finished.set()
        thread.join()
        closing = client.close()
        if kind is AsyncClient:
            await closing


def test_the_error_of_every_image_of_map_has_the_reason():
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
def test_an_invalid_address_is_refused_when_the_client_is_created(kind, target, message):
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
