"""A server with a dead or late background loop says NOT_SERVING; a worker with one ends, to be restarted."""

from __future__ import annotations

import subprocess
import sys
import threading

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import until

HANGING = """
import sys, threading
from convlens.jobs.runtime import background
from convlens.jobs.runtime.background import Loop
import {module} as module
{more}
loop = Loop("hanging", threading.Event().wait, deadline=1.0)
threading.Timer(2.0, loop.start).start()
sys.exit(module.main({flags}))
"""


def start(service, module, flags, more=""):
    """Start a server or worker in which a background loop hangs after two seconds."""
    code = HANGING.format(module=module, flags=flags, more=more)
    env = service.environment()
    return subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_server_with_a_hanging_loop_is_not_serving(start_service):
    service = start_service()
    service.worker("null=null")
    server = start(service, "convlens.server.__main__", ["--port", "0"])
    try:
        target = server.stdout.readline().split()[-1]
        with grpc.insecure_channel(target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            def is_serving(name=""):
                response = stub.Check(health_pb2.HealthCheckRequest(service=name))
                return response.status == health_pb2.HealthCheckResponse.SERVING

            until(is_serving)
            until(lambda: not is_serving())
            assert not is_serving("model/null")
    finally:
        server.kill()
        errors = server.communicate()[1]
    assert "loops=hanging are dead or late" in errors


def test_a_worker_with_a_hanging_loop_exits_with_status_70(start_service):
    service = start_service()
    short_limit = "from convlens.worker.pipeline import watchdog; watchdog.UNWELL_SECONDS = 2.0"
    worker = start(service, "convlens.worker.__main__", ["--model", "null=null"], short_limit)
    timeout = threading.Timer(60, worker.kill)
    timeout.start()
    errors = worker.communicate()[1]
    timeout.cancel()
    assert worker.returncode == 70
    assert "loops=hanging are dead or late" in errors
