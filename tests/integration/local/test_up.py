"""`convlens up` and `serving()` run a whole service on one machine, restart what dies and leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import redis
from processes import until

from convlens.client import TLS, Client, GradCAM, JobFailed, Saliency, Unavailable
from convlens.local import serving
from convlens.local.certificates import ensure_certificates
from convlens.v1 import job_pb2

KINDS = ("convlens.worker", "convlens.server", "valkey-server")
NULL = ("--model", "null=null")
IMAGE = np.zeros((224, 224, 3), np.uint8)


def children(pid) -> dict[str, int]:
    """The process ids of the children of `pid`, by kind."""
    pids = {}
    kinds = (*KINDS, "convlens.web")
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_text()  # empty or the parent's in a process just forked
        pids |= {name: int(child) for name in kinds if name in command and "convlens.local.up" not in command}
    return pids


def is_alive(pid) -> bool:
    """True for a running process; False for a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def up(*flags, log):
    """Run `convlens up` as a user does, and yield the process and its target."""
    command = [sys.executable, "-m", "convlens.local.up", "--port", "0", "--log", "-", *flags]
    with log.open("w") as err, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("ready: grpc 127.0.0.1:"), log.read_text()
            assert "ready: " not in log.read_text()
            yield process, line.split()[-1]
        finally:
            while process.poll() is None:  # the second signal ends it without draining
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)


def failed_start(*flags):
    """Run a `convlens up` that cannot start, and return its error output."""
    command = [sys.executable, "-m", "convlens.local.up", *flags]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)
    assert process.returncode == 1
    assert process.stdout == ""
    return process.stderr


def test_up_serves_forwards_logs_and_ends_all_its_processes(tmp_path):
    with up(*NULL, log=tmp_path / "log") as (process, target):
        pids = children(process.pid)
        assert set(pids) == set(KINDS)
        with Client(target) as client:
            assert client.grad_cam(IMAGE)["grad_cam"].shape == (1, 14, 14)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert not any(map(is_alive, pids.values()))
    log = (tmp_path / "log").read_text()
    assert all(f"{name} | " in log for name in ("valkey", "worker", "server"))
    assert "succeeded" in log


def test_all_processes_end_when_up_is_killed(tmp_path):
    with up(*NULL, log=tmp_path / "log") as (process, _):
        pids = children(process.pid)
        process.kill()
        process.wait()
        until(lambda: not any(map(is_alive, pids.values())))


def test_temporary_folders_of_a_killed_up_are_deleted_by_the_next(tmp_path):
    def folders():
        return {path for parent in (tempfile.gettempdir(), "/dev/shm") for path in Path(parent).glob("convlens-up-*")}

    before = folders()
    with up(*NULL, log=tmp_path / "other.log") as (_, target):
        in_use = folders() - before
        with up(*NULL, log=tmp_path / "log") as (process, _):
            abandoned = folders() - in_use - before
            assert abandoned
            process.kill()
            process.wait()
        assert abandoned <= folders()
        with (
            tempfile.TemporaryDirectory(prefix="convlens-", dir="/dev/shm") as foreign,
            up(*NULL, log=tmp_path / "next.log"),
        ):
            until(lambda: not abandoned & folders())
            assert Path(foreign).exists()  # for example a payload folder
        with Client(target, timeout=60) as client:
            assert client.saliency(IMAGE)["saliency"].shape == (1, 224, 224)
        assert in_use <= folders()
    until(lambda: not in_use & folders())


@pytest.mark.parametrize("victim", KINDS)
def test_a_killed_child_is_restarted_and_calls_succeed_again(tmp_path, victim):
    with up(*NULL, log=tmp_path / "log") as (process, target), Client(target, timeout=60) as client:
        assert client.saliency(IMAGE)
        before = children(process.pid)[victim]
        os.kill(before, signal.SIGKILL)
        until(lambda: children(process.pid).get(victim, before) != before)
        assert client.saliency(IMAGE)["saliency"].shape == (1, 224, 224)


@pytest.mark.parametrize("victim", KINDS)
def test_live_jobs_succeed_when_a_child_is_killed(tmp_path, victim):
    slow = ("--model", "null=null,device_ms=50+0", "--max-batch-size", "1", "--lease", "2")
    with up(*slow, log=tmp_path / "log") as (process, target), Client(target, timeout=120) as client:
        jobs = [client.submit(IMAGE, [GradCAM()]) for _ in range(40)]
        until(lambda: jobs[3].status().state == job_pb2.JOB_STATE_SUCCEEDED)
        os.kill(children(process.pid)[victim], signal.SIGKILL)
        assert all(job.result()["grad_cam"].shape == (1, 14, 14) for job in jobs)


def test_a_worker_whose_device_hangs_is_restarted_until_the_job_fails(tmp_path):
    hanging = ("--model", "hung=null,device_ms=1e9+0", "--device-timeout", "1", "--lease", "2")
    with up(*NULL, *hanging, log=tmp_path / "log") as (_, target), Client(target, timeout=120) as client:
        with pytest.raises(JobFailed, match="begun 3 times") as failed:
            client.grad_cam(IMAGE, model="hung")
        assert failed.value.reason == "ATTEMPTS_EXHAUSTED"
        assert client.grad_cam(IMAGE, model="null")["grad_cam"].shape == (1, 14, 14)
    assert (tmp_path / "log").read_text().count("ended with status 70; started again") == 3


def test_jobs_and_results_in_a_data_dir_survive_a_restart(tmp_path):
    flags = (*NULL, "--data-dir", str(tmp_path / "data"))
    with up(*flags, log=tmp_path / "log") as (process, target), Client(target) as client:
        job = client.submit(IMAGE, [Saliency(), GradCAM()])
        first = job.result()
        process.terminate()
        process.wait(60)
    with up(*flags, log=tmp_path / "log") as (_, target), Client(target) as client:
        again = client.job(job.id).result()
    assert again.keys() == first.keys()
    assert again.timing == first.timing


def test_several_workers_serve_one_model(tmp_path):
    with up(*NULL, "--workers", "2", log=tmp_path / "log") as (_, target), Client(target) as client:
        until(lambda: client.model("null").workers == 2)


def test_serving_runs_a_service_as_a_context_manager(tmp_path):
    with serving(models=["null=null"], log=tmp_path / "log") as target, Client(target) as client:
        assert [model.name for model in client.models()] == ["null"]
    with pytest.raises(RuntimeError, match="log"), serving(models=["x=nonsense"], log=tmp_path / "log"):
        pass
    assert "allowed: shapes, imagenet" in (tmp_path / "log").read_text()


def test_a_port_in_use_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}" in failed_start("--port", str(port), *NULL)


def test_a_redis_that_does_not_answer_is_reported():
    error = failed_start("--redis-url", "redis://127.0.0.1:1/0", *NULL)
    assert "no Redis or Valkey answers at the --redis-url given" in error


def test_with_a_tls_dir_certificates_are_created_once_and_required_of_clients(tmp_path):
    folder, log = tmp_path / "tls", tmp_path / "log"
    tls = TLS(folder / "ca.pem", folder / "client.pem", folder / "client.key")
    contents = []
    for _ in range(2):
        with up(*NULL, "--tls-dir", str(folder), log=log) as (process, target):
            assert f"--ca {tls.ca} --cert {tls.certificate} --key {tls.key}" in log.read_text()
            with Client(target, tls=tls, timeout=60) as client:
                assert client.grad_cam(IMAGE)["grad_cam"].shape == (1, 14, 14)
            for without_certificate in (TLS(folder / "ca.pem"), None):
                with Client(target, tls=without_certificate, timeout=3) as client, pytest.raises(Unavailable):
                    client.models()
            process.terminate()
            assert process.wait(60) == 0
        assert {path.stat().st_mode & 0o777 for path in folder.glob("*.key")} == {0o600}
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 6


def test_an_incomplete_tls_dir_without_the_key_of_its_ca_is_reported(tmp_path):
    ensure_certificates(tmp_path)
    (tmp_path / "ca.key").unlink()
    (tmp_path / "server.key").unlink()
    assert "server.pem or its key is missing, and so is" in failed_start("--tls-dir", str(tmp_path), *NULL)


def test_the_valkey_of_up_requires_a_password_that_only_its_user_can_read(tmp_path):
    data, log = tmp_path / "data", tmp_path / "log"
    with up(*NULL, "--data-dir", str(data), log=log) as (process, _):
        port = int(re.search(r"Running mode=standalone, port=(\d+)", log.read_text())[1])
        with redis.Redis(port=port) as unauthenticated, pytest.raises(redis.AuthenticationError):
            unauthenticated.keys()
        config = data / "valkey.conf"
        assert config.stat().st_mode & 0o777 == 0o600
        password = config.read_text().split()[1]
        with redis.Redis(port=port, password=password) as authenticated:
            assert authenticated.keys()
        commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children(process.pid).values()]
        assert password not in "".join(commands) + log.read_text()


def test_several_servers_share_the_port(tmp_path):
    with up(*NULL, "--servers", "2", log=tmp_path / "log") as (_, target):
        for _ in range(6):  # the kernel gives each new connection to one of the servers
            with Client(target) as client:
                assert client.grad_cam(IMAGE, fresh=True)["grad_cam"].shape == (1, 14, 14)
    log = (tmp_path / "log").read_text()
    assert "server-1 | " in log
    assert "server-2 | " in log


def test_it_starts_quietly_and_all_that_its_processes_log_is_in_the_file_it_names(tmp_path):
    data = tmp_path / "data"
    models = (*NULL, "--model", "bad=nonsense")
    command = [sys.executable, "-m", "convlens.local.up", "--port", "0", "--data-dir", str(data), *models]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("ready: grpc ")
        process.terminate()
        stderr = process.communicate(timeout=60)[1].splitlines()
    assert stderr[0] == f"convlens up: starting; the log of its processes is {data / 'up.log'}"
    assert stderr[1].startswith("worker | error: --model 'bad=nonsense': no source 'nonsense'")
    log = (data / "up.log").read_text()
    assert all(f"{name} | " in log for name in ("valkey", "worker", "server"))
    assert "Running mode=standalone" in log
    findings = [line for line in stderr[2:] if not re.match(r"(server|worker) \| (warning|error): check=", line)]
    assert not findings
    assert (data / "up.log").stat().st_mode & 0o777 == 0o600


def test_a_failure_ends_with_its_reason():
    assert failed_start("--port", "0", "--model", "x=nonsense").splitlines()[-1].startswith(
        "convlens up: worker ended with status 1 before it was ready: none of the models can be served: "
        "--model 'x=nonsense': no source 'nonsense'"
    )  # fmt: skip
    gone = failed_start("--log", "/gone/up.log", *NULL).splitlines()
    assert gone == ["convlens up: --log /gone/up.log cannot be written: No such file or directory"]
    assert "no Redis or Valkey answers" in failed_start("--redis-url", "redis://127.0.0.1:1/0", *NULL).splitlines()[-1]


@pytest.mark.parametrize("is_secured", [False, True])
def test_up_serves_the_page_and_http_as_well(tmp_path, is_secured):
    flags = ["--tls-dir", str(tmp_path / "tls")] if is_secured else []
    flags += ["--web-allowed-hosts", "a.example", "--web-allowed-hosts", "b.example"]
    with up(*NULL, "--web", "--web-port", "0", *flags, log=tmp_path / "log") as (process, _):
        ready = process.stdout.readline()
        assert ready.startswith("ready: http 127.0.0.1:")
        url = f"http://{ready.split()[-1]}"
        assert [model["name"] for model in httpx.get(f"{url}/v1/models").json()["models"]] == ["null"]
        hosts = ("a.example", "b.example", "c.example")
        codes = [httpx.get(f"{url}/v1/models", headers={"Host": host}).status_code for host in hosts]
        assert codes == [200, 200, 403]
        assert f"explore in a browser: {url}\n" in (tmp_path / "log").read_text()
        killed = children(process.pid)["convlens.web"]
        os.kill(killed, signal.SIGKILL)
        until(lambda: children(process.pid).get("convlens.web", killed) != killed)
        until(lambda: is_answering(url))


def is_answering(url) -> bool:
    """True if a gateway serves there."""
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthz").is_success
    return False
