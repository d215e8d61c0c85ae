"""A server serves on asyncio's own event loop where uvloop is not installed."""

from __future__ import annotations

import subprocess
import sys

from convlens.client import Client

WITHOUT = """
import sys
sys.modules.update(uvloop=None, zlib_ng=None)
from convlens.server import __main__ as server
sys.exit(server.main(sys.argv[1:]))
"""


def test_a_server_serves_without_uvloop_and_zlib_ng(redis_url):
    command = [sys.executable, "-c", WITHOUT, "--port", "0", "--redis-url", redis_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("ready: grpc "), line
            with Client(line.split()[-1]) as client:
                assert client.server_info().version
        finally:
            process.terminate()
    assert process.returncode == 0
