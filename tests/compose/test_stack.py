"""The container stack for real: built, brought up, called through its published port, hurt, and taken down.

Needs root, docker and docker-compose: `make test-compose`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from chaos.fault import Fault
from chaos.hurt import running
from chaos.load import Load
from chaos.questions import null, slow
from chaos.runner import run
from processes import until

from convlens.client import Client, GradCAM, NotFound, Saliency, Unavailable
from convlens.worker.engine import plan
from convlens.worker.engine.network import Network
from convlens.worker.shapes import draw
from convlens.worker.shapes.model import PREPROCESS, load

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1500)]
TOP = Path(__file__).parents[2]
LEASE = 3
MODELS = "shapes=shapes null=null mine=null slow=null,device_ms=700+0"
SCENES = np.stack([draw(4242, i).image for i in range(3)])


class Stack:
    """One project of docker-compose, on a free port."""

    def __init__(self) -> None:
        self.project = f"convlens-test-{uuid.uuid4().hex[:8]}"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.target = f"127.0.0.1:{port}"
        self._env = os.environ | {
            "CONVLENS_PORT": str(port),
            "CONVLENS_LEASE": str(LEASE),
            "CONVLENS_MODEL": MODELS,
            "REDIS_PASSWORD": secrets.token_hex(16),
        }
        self.known: set[str] = set()
        """The ids of all jobs that were ever asked for."""

    def run(self, *words: str) -> str:
        """docker-compose's output; an AssertionError with all it said when it fails."""
        command = ["docker-compose", "-p", self.project, *words]
        done = subprocess.run(command, cwd=TOP, env=self._env, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def inspect(self, service: str) -> dict:
        """What docker says of a service's container."""
        container = self.run("ps", "-q", service).strip()
        return json.loads(subprocess.check_output(["docker", "inspect", container]))[0]

    def healthy(self, *services: str, seconds: float = 180) -> None:
        """Waits until their health checks pass."""
        end = time.monotonic() + seconds
        while bad := [it for it in services if self.inspect(it)["State"].get("Health", {}).get("Status") != "healthy"]:
            assert time.monotonic() < end, f"{bad} never became healthy:\n{self.run('logs', '--tail=40', *bad)}"
            time.sleep(0.5)

    def await_whole(self) -> None:
        """Waits until every model is served."""
        with Client(self.target, timeout=60) as client:

            def whole() -> bool:
                with contextlib.suppress(Unavailable):
                    return {it.name for it in client.models()} == {it.split("=")[0] for it in MODELS.split()}
                return False

            until(whole, 120)

    def kill(self, service: str) -> None:
        """SIGKILL to the container, and its start by hand: docker restarts nothing that was killed on purpose."""
        self.run("kill", "-s", "SIGKILL", service)
        self.run("up", "-d", "--no-build", service)


@pytest.fixture(scope="module")
def stack():
    subprocess.run(["docker", "info"], check=True, capture_output=True)
    stack = Stack()
    stack.run("build", "-q", "server", "worker")
    try:
        stack.run("up", "-d", "--no-build", "redis", "server", "worker")
        stack.healthy("redis", "worker", "server")
        yield stack
    finally:
        stack.run("down", "-v", "--remove-orphans", "-t", "45")


@pytest.fixture(scope="module")
def expected():
    """What the engine says in this process."""
    maps = (plan.Saliency(), plan.GradCAM("block5_conv3"))
    return Network(load(), PREPROCESS).run(SCENES, plan.Plan(maps, predictions=5))


def right(result, expected) -> None:
    saliency, cam = (array[:, 0] for array in expected.maps.values())
    np.testing.assert_allclose(result["grad_cam"], cam, atol=1e-4 * cam.max())
    assert np.median(np.abs(result["saliency"] - saliency)) <= 1e-5 * saliency.max()
    assert [p[0].index for p in result.predictions] == expected.predicted[:, 0].tolist()


def test_the_maps_are_the_engines(stack, expected):
    with Client(stack.target) as client:
        right(client.visualize(SCENES, [Saliency(), GradCAM()]), expected)


@pytest.mark.parametrize("service", ["redis", "server", "worker"])
def test_no_container_is_root_or_can_write_to_itself(stack, service):
    found = stack.inspect(service)
    status = Path(f"/proc/{found['State']['Pid']}/status").read_text()
    uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    assert "0" not in uids
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["CapDrop"] == ["ALL"]


def test_only_this_machine_reaches_it_and_redis_has_a_password(stack):
    (published,) = stack.inspect("server")["NetworkSettings"]["Ports"]["50051/tcp"]
    assert published["HostIp"] == "127.0.0.1"
    unknown = stack.run("exec", "-T", "-e", "REDISCLI_AUTH=", "redis", "redis-cli", "info")
    assert unknown.startswith("NOAUTH")
    user = json.loads(subprocess.check_output(["docker", "inspect", stack.inspect("worker")["Image"]]))[0]
    assert user["Config"]["User"] == "10001:10001"


def test_without_a_password_of_redis_nothing_is_brought_up(stack):
    env = {name: value for name, value in os.environ.items() if name != "REDIS_PASSWORD"}
    done = subprocess.run(["docker-compose", "config"], cwd=TOP, env=env, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "set REDIS_PASSWORD" in done.stderr


def test_it_is_not_published_to_others_while_everybody_may_call(stack):
    words = ["run", "--rm", "--no-deps", "-T", "-e", "CONVLENS_PUBLISH=0.0.0.0", "server"]
    with pytest.raises(AssertionError, match=r"--publish: .*whoever reaches it may ask for anything"):
        stack.run(*words)


@pytest.mark.parametrize("victim", ["worker", "server"])
def test_every_acknowledged_job_succeeds_though_a_container_is_killed(stack, expected, victim):
    with Client(stack.target, timeout=240) as client:
        jobs = [client.submit(SCENES, [Saliency(), GradCAM()], timeout=240) for _ in range(60)]
        stack.kill(victim)
        for job in jobs:
            right(job.result(), expected)


def test_every_acknowledged_job_that_reached_the_disk_survives_redis_killed(stack, expected):
    with Client(stack.target, timeout=240) as client:
        jobs = [client.submit(SCENES, [Saliency(), GradCAM()], timeout=240) for _ in range(60)]
        time.sleep(1.5)  # what appendfsync everysec promises: all but the last second
        stack.kill("redis")
        stack.healthy("redis", "worker", "server")
        for job in jobs:
            right(job.result(), expected)


def paused(stack: Stack, service: str) -> None:
    """All its processes stand still, and its connections stay open."""
    stack.run("pause", service)
    time.sleep(LEASE + 1)
    stack.run("unpause", service)


def cut_off(stack: Stack, service: str) -> None:
    """Its connections are gone without a word; it comes back to the network under its name."""
    found = stack.inspect(service)
    network = f"{stack.project}_default"
    subprocess.run(["docker", "network", "disconnect", network, found["Id"]], check=True)
    time.sleep(LEASE + 1)
    subprocess.run(["docker", "network", "connect", "--alias", service, network, found["Id"]], check=True)


@pytest.mark.parametrize("service", ["worker", "server", "redis"])
@pytest.mark.parametrize("way", [paused, cut_off])
def test_nothing_is_lost_wrong_or_doubled_though_a_container_is(stack, capsys, service, way):
    def act(stack: Stack, load: Load) -> None:
        job = load.begin(slow(1))
        until(lambda: running(job))
        load.strike()
        way(stack, service)
        stack.healthy("redis", "worker", "server")
        job.wait()

    fault = Fault(f"{service} {way.__name__}", act, "", errors=(NotFound,))  # MODEL_UNKNOWN, while its worker is away
    row = run(fault, stack, [null(unit) for unit in range(24)], 200, 0.05)
    with capsys.disabled():
        print(f"\n{row.fault}: {row.jobs} jobs, {row.lost} lost, {row.wrong} wrong, {row.doubled} doubled, "
              f"{row.recovery:.2f} s, callers met {', '.join(row.met) or 'nothing'}")  # fmt: skip
    assert not row.told, "\n".join(row.told)
    assert (row.lost, row.wrong, row.doubled) == (0, 0, 0)


def test_it_stops_within_its_grace_and_exits_cleanly(stack):
    for service in ("server", "worker"):
        container = stack.inspect(service)["Id"]
        stack.run("stop", service)
        state = json.loads(subprocess.check_output(["docker", "inspect", container]))[0]["State"]
        assert state["ExitCode"] == 0, service
