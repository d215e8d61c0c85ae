"""The real container stack: built, started, called through its published port, exposed to faults, and removed.

Needs root, docker and docker-compose: `make test-compose`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import socket
import subprocess
import time
import uuid
from pathlib import Path

import httpx
import numpy as np
import pytest
from chaos.cases import null, slow
from chaos.fault import Fault
from chaos.load import Load
from chaos.process_faults import is_running
from chaos.runner import run
from PIL import Image
from processes import until

from convlens.client import Client, GradCAM, NotFound, Saliency, Unavailable
from convlens.worker.engine import plan
from convlens.worker.engine.network import Network
from convlens.worker.shapes import draw
from convlens.worker.shapes.model import PREPROCESS, load

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
LEASE = 3
MODELS = "shapes=shapes null=null mine=null slow=null,device_ms=700+0"
SCENES = np.stack([draw(4242, i).image for i in range(3)])


class Stack:
    """One project of docker-compose, on a free port."""

    def __init__(self) -> None:
        self.project = f"convlens-test-{uuid.uuid4().hex[:8]}"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            web_port = probe.getsockname()[1]
        self.target = f"127.0.0.1:{port}"
        self.url = f"http://localhost:{web_port}"
        self._env = os.environ | {
            "CONVLENS_PORT": str(port),
            "CONVLENS_WEB_PORT": str(web_port),
            "COMPOSE_PROFILES": "web",
            "CONVLENS_LEASE": str(LEASE),
            "CONVLENS_MODEL": MODELS,
            "REDIS_PASSWORD": secrets.token_hex(16),
        }
        self.job_ids: set[str] = set()
        """The ids of all jobs that callers have submitted."""

    def run(self, *arguments: str) -> str:
        """Run docker-compose and return its output; an AssertionError holds the output when it fails."""
        command = ["docker-compose", "-p", self.project, *arguments]
        process = subprocess.run(command, cwd=ROOT, env=self._env, check=False, capture_output=True, text=True)
        assert process.returncode == 0, f"{' '.join(command)}:\n{process.stdout}\n{process.stderr}"
        return process.stdout

    def health(self, service: str) -> str | None:
        """The health status of a service's container."""
        return self.inspect(service)["State"].get("Health", {}).get("Status")

    def inspect(self, service: str) -> dict:
        """Return the output of `docker inspect` for a service's container."""
        container = self.run("ps", "-q", service).strip()
        return json.loads(subprocess.check_output(["docker", "inspect", container]))[0]

    def await_healthy(self, *services: str, seconds: float = 180) -> None:
        """Wait until the health checks of the services pass."""
        end = time.monotonic() + seconds
        while unhealthy := [service for service in services if self.health(service) != "healthy"]:
            logs = self.run("logs", "--tail=40", *unhealthy)
            assert time.monotonic() < end, f"{unhealthy} never became healthy:\n{logs}"
            time.sleep(0.5)

    def await_models(self) -> None:
        """Wait until every model is served."""
        names = {model.split("=")[0] for model in MODELS.split()}
        with Client(self.target, timeout=60) as client:

            def are_served() -> bool:
                with contextlib.suppress(Unavailable):
                    return {model.name for model in client.models()} == names
                return False

            until(are_served, 120)

    def kill(self, service: str) -> None:
        """Kill a container with SIGKILL and start it: docker does not restart a container killed by a command."""
        self.run("kill", "-s", "SIGKILL", service)
        self.run("up", "-d", "--no-build", service)


@pytest.fixture(scope="module")
def stack():
    subprocess.run(["docker", "info"], check=True, capture_output=True)
    stack = Stack()
    stack.run("build", "-q", "server", "worker", "web")
    try:
        stack.run("up", "-d", "--no-build", "redis", "server", "worker", "web")
        stack.await_healthy("redis", "worker", "server", "web")
        yield stack
    finally:
        stack.run("down", "-v", "--remove-orphans", "-t", "45")


@pytest.fixture(scope="module")
def expected():
    """The maps and predictions that the engine computes in this process."""
    maps = (plan.Saliency(), plan.GradCAM("block5_conv3"))
    return Network(load(), PREPROCESS).run(SCENES, plan.Plan(maps, predictions=5))


def check(result, expected) -> None:
    """Assert that a result agrees with the engine's outputs."""
    saliency, cam = (array[:, 0] for array in expected.maps.values())
    np.testing.assert_allclose(result["grad_cam"], cam, atol=1e-4 * cam.max())
    assert np.median(np.abs(result["saliency"] - saliency)) <= 1e-5 * saliency.max()
    assert [p[0].index for p in result.predictions] == expected.predicted[:, 0].tolist()


def test_maps_agree_with_the_engines(stack, expected):
    with Client(stack.target) as client:
        check(client.visualize(SCENES, [Saliency(), GradCAM()]), expected)


def test_the_page_and_maps_come_by_http(stack, expected):
    assert "<title>" in httpx.get(stack.url).text
    file = io.BytesIO()
    Image.fromarray(SCENES[0]).save(file, "PNG")
    response = httpx.post(
        f"{stack.url}/v1/visualize", files={"image": file.getvalue()}, headers={"Accept": "application/x-npz"}
    )
    cam = np.load(io.BytesIO(response.read()))["grad_cam"]
    np.testing.assert_allclose(cam[0].squeeze(), list(expected.maps.values())[1][0, 0], atol=1e-4 * cam.max())


@pytest.mark.parametrize("service", ["redis", "server", "worker", "web"])
def test_no_container_runs_as_root_or_writes_to_its_image(stack, service):
    container = stack.inspect(service)
    status = Path(f"/proc/{container['State']['Pid']}/status").read_text()
    uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    assert "0" not in uids
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["HostConfig"]["CapDrop"] == ["ALL"]


def test_ports_are_published_on_loopback_only_and_redis_has_a_password(stack):
    for service, port in (("server", "50051/tcp"), ("web", "8080/tcp")):
        (published,) = stack.inspect(service)["NetworkSettings"]["Ports"][port]
        assert published["HostIp"] == "127.0.0.1"
    reply = stack.run("exec", "-T", "-e", "REDISCLI_AUTH=", "redis", "redis-cli", "info")
    assert reply.startswith("NOAUTH")
    user = json.loads(subprocess.check_output(["docker", "inspect", stack.inspect("worker")["Image"]]))[0]
    assert user["Config"]["User"] == "10001:10001"


def test_the_stack_does_not_start_without_a_redis_password(stack):
    env = {name: value for name, value in os.environ.items() if name != "REDIS_PASSWORD"}
    command = ["docker-compose", "config"]
    process = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    assert process.returncode != 0
    assert "set REDIS_PASSWORD" in process.stderr


def test_a_server_without_tokens_is_not_published_to_other_machines(stack):
    with pytest.raises(AssertionError, match=r"--publish: .*whoever reaches it may ask for anything"):
        stack.run("run", "--rm", "--no-deps", "-T", "-e", "CONVLENS_PUBLISH=0.0.0.0", "server")


@pytest.mark.parametrize("victim", ["worker", "server"])
def test_every_acknowledged_job_succeeds_when_a_container_is_killed(stack, expected, victim):
    with Client(stack.target, timeout=240) as client:
        jobs = [client.submit(SCENES, [Saliency(), GradCAM()], timeout=240) for _ in range(60)]
        stack.kill(victim)
        for job in jobs:
            check(job.result(), expected)


def test_every_acknowledged_job_on_disk_survives_a_killed_redis(stack, expected):
    with Client(stack.target, timeout=240) as client:
        jobs = [client.submit(SCENES, [Saliency(), GradCAM()], timeout=240) for _ in range(60)]
        time.sleep(1.5)  # appendfsync everysec may lose the last second
        stack.kill("redis")
        stack.await_healthy("redis", "worker", "server")
        for job in jobs:
            check(job.result(), expected)


def paused(stack: Stack, service: str) -> None:
    """Pause all processes of a service for longer than a lease; its connections stay open."""
    stack.run("pause", service)
    time.sleep(LEASE + 1)
    stack.run("unpause", service)


def disconnected(stack: Stack, service: str) -> None:
    """Disconnect a service from the network for longer than a lease, without closing its connections."""
    container = stack.inspect(service)["Id"]
    network = f"{stack.project}_default"
    subprocess.run(["docker", "network", "disconnect", network, container], check=True)
    time.sleep(LEASE + 1)
    subprocess.run(["docker", "network", "connect", "--alias", service, network, container], check=True)


@pytest.mark.parametrize("service", ["worker", "server", "redis"])
@pytest.mark.parametrize("disturb", [paused, disconnected])
def test_no_job_is_lost_wrong_or_doubled_when_a_container_is(stack, capsys, service, disturb):
    def inject(stack: Stack, load: Load) -> None:
        job = load.submit(slow(1))
        until(lambda: is_running(job))
        load.mark_fault()
        disturb(stack, service)
        stack.await_healthy("redis", "worker", "server")
        job.wait()

    fault = Fault(f"{service} {disturb.__name__}", inject, "", errors=(NotFound,))  # MODEL_UNKNOWN without its worker
    row = run(fault, stack, [null(unit) for unit in range(24)], 200, 0.05)
    with capsys.disabled():
        print(f"\n{row.fault}: {row.jobs} jobs, {row.lost} lost, {row.wrong} wrong, {row.doubled} doubled, "
              f"{row.recovery:.2f} s, errors: {', '.join(row.errors) or 'none'}")  # fmt: skip
    assert not row.problems, "\n".join(row.problems)
    assert (row.lost, row.wrong, row.doubled) == (0, 0, 0)


def test_containers_stop_within_their_grace_period_and_exit_with_0(stack):
    for service in ("server", "worker"):
        container = stack.inspect(service)["Id"]
        stack.run("stop", service)
        state = json.loads(subprocess.check_output(["docker", "inspect", container]))[0]["State"]
        assert state["ExitCode"] == 0, service
