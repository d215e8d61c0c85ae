"""`convlens web` as a process: the ready line, its end, wrong flags."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from gateways import png

from convlens.client.testing import serve
from convlens.web.command import main

COMMAND = [sys.executable, "-m", "convlens.web"]


@contextmanager
def running(*flags, **variables):
    """Run `convlens web`, and give the process and its address."""
    env = os.environ | variables
    with subprocess.Popen(
        [*COMMAND, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as web:
        try:
            ready = web.stdout.readline()
            assert ready.startswith("ready: http "), web.stderr.read()
            yield web, f"http://{ready.split()[-1]}"
        finally:
            web.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_serves_and_ends_cleanly_at_a_signal(target, number):
    with running("--server", target, "--port", "0") as (web, url):
        assert httpx.get(f"{url}/v1/server").json()["address"] == target
        web.send_signal(number)
        assert web.wait(timeout=10) == 0
        assert web.stdout.read() == ""
        assert web.stderr.read() == ""


def test_a_signal_ends_it_though_requests_are_under_way():
    server = serve(delay=600)
    with server as target, running("--server", target, "--port", "0") as (web, url), httpx.Client(base_url=url) as http:
        job = http.post("/v1/jobs", files={"image": ("a.png", png())}).headers["location"]
        with http.stream("GET", f"{job}/events") as response:
            parts = response.iter_text()  # kept, since a collected iterator closes the connection
            assert "event: job" in next(parts)
            web.terminate()
            assert web.wait(timeout=20) == 0


def test_flags_may_be_variables(target):
    variables = {
        "CONVLENS_SERVER": target,
        "CONVLENS_WEB_PORT": "0",
        "CONVLENS_WEB_ALLOWED_HOSTS": "a.example b.example",
    }
    with running(**variables) as (_, url):
        for host, status in (("a.example", 200), ("b.example", 200), ("c.example", 403)):
            assert httpx.get(f"{url}/v1/server", headers={"Host": host}).status_code == status


def test_the_server_may_be_given_before_the_subcommand_as_for_all_others(target):
    command = [Path(sys.executable).with_name("convlens"), "--server", target, "web", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as web:
        url = f"http://{web.stdout.readline().split()[-1]}"
        assert httpx.get(f"{url}/v1/server").json()["address"] == target
        web.terminate()


def test_it_listens_on_ipv6_too(target):
    with running("--server", target, "--port", "0", "--host", "::1") as (_, url):
        assert url.startswith("http://[::1]:")
        assert httpx.get(f"{url}/v1/server").status_code == 200


def test_a_port_that_is_in_use_ends_it_with_a_reason(target, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["--server", target, "--port", str(other.getsockname()[1])]) == 1
    assert "cannot listen on 127.0.0.1:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--server", "http://queue:50051"], "give queue:50051 alone"),
        (["--port", "70000"], "65535"),
        (["--max-body-bytes", "3"], "1024"),
        (["--cert", "client.pem"], "go together"),
        (["--ca", "/nowhere/ca.pem"], "cannot read /nowhere/ca.pem"),
        (["--verbose"], "No such option"),
    ],
)
def test_wrong_flags_end_it_with_status_2(capsys, flags, says):
    assert main([*flags, *(["--port", "0"] if "--port" not in flags else [])]) == 2
    assert says in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_help_lists_every_flag(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(flag in text for flag in ("--server", "--tls", "--host", "--port", "--max-body-bytes", "--allowed-host"))
