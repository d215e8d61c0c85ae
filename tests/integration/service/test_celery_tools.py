"""Celery's own tools show workers and jobs: `celery inspect` and Flower."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image
from processes import running, until

from convlens.client import Client, ConvlensError, JobState, Saliency
from convlens.jobs.queue.celery import celery_app

APP = "convlens.jobs.queue.celery"
BATCH = np.zeros((4, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def service(tmp_path_factory, own_valkey):
    with running(tmp_path_factory.mktemp("service"), own_valkey) as service:
        service.worker("null=null", "slow=null,device_ms=3000+0", flags=("--max-batch-size", "1"))
        yield service


@pytest.fixture(scope="module")
def client(service):
    with Client(service.server()[1], timeout=60) as client:
        until(client.models)
        yield client


def celery(service, *arguments):
    """The command and the environment of a Celery tool."""
    command = [sys.executable, "-m", "celery", "-A", APP, *arguments]
    return command, os.environ | {"CONVLENS_REDIS_URL": service.url}


def inspect(service, *arguments):
    """Run `celery inspect` and return the reply of each worker."""
    command, environment = celery(service, "inspect", "--json", *arguments)
    process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    return list(json.loads(process.stdout).values())


def test_workers_reply_to_a_ping(service, client):
    assert inspect(service, "ping") == [{"ok": "pong"}]


def test_running_jobs_are_listed_by_their_ids(service, client):
    job = client.submit(BATCH, [Saliency()], model="slow", priority="high")
    ((task,),) = until(lambda: [tasks for tasks in inspect(service, "active") if tasks])
    assert (task["id"], task["name"], task["args"]) == (job.id, "convlens.visualize", [job.id])
    ((entry,),) = inspect(service, "jobs")
    assert (entry["id"], entry["model"], entry["priority"], entry["images"]) == (job.id, "slow", "high", 4)
    job.cancel()


def test_models_are_listed_with_their_celery_lists(service, client):
    (models,) = inspect(service, "models")
    assert [(model["name"], model["source"], model["list"]) for model in models] == [
        ("null", "null", "convlens.null"),
        ("slow", "null", "convlens.slow"),
    ]


def test_heartbeats_count_the_jobs_that_are_computed(service, client):
    jobs = [client.submit(BATCH, [Saliency()], model="slow", fresh=True) for _ in range(6)]
    app, counts = celery_app(service.url), []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, {"worker-heartbeat": lambda event: counts.append(event["active"])})
        for _ in receiver.itercapture(timeout=30, wakeup=False):
            computed = [job for job in jobs if job.status().state is JobState.RUNNING]
            if computed and counts[-1:] == [len(computed)]:
                break
            assert len(counts) < 8, f"{counts} jobs counted, {len(computed)} running"
    for job in jobs:
        job.cancel()


def truncated_jpeg():
    """The first half of a photo's file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "jpeg")
    return file.getvalue()[: file.tell() // 2]


@contextlib.contextmanager
def flower(service):
    """Run Flower beside a service and yield a function that fetches a path of its API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command, environment = celery(service, "flower", "--address=127.0.0.1", f"--port={port}", "--basic-auth=a:b")
    authorization = "Basic " + base64.b64encode(b"a:b").decode()

    def fetch(path):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": authorization})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            until(lambda: fetch("/api/workers") is not None, 60)
            yield fetch
        finally:
            process.kill()


def test_flower_shows_workers_and_how_each_job_ended(service, client):
    with flower(service) as fetch:
        assert until(lambda: fetch("/api/workers?refresh=1"), 60)
        until(lambda: fetch("/api/workers?status=1"), 60)  # after a heartbeat Flower receives events
        succeeded = client.submit(BATCH, [Saliency()], model="null")
        succeeded.result()
        unreadable = client.submit(truncated_jpeg(), [Saliency()], model="null")
        with pytest.raises(ConvlensError):
            unreadable.result()
        cancelled = client.submit(BATCH, [Saliency()], model="slow")
        until(lambda: fetch(f"/api/task/info/{cancelled.id}"), 30)
        cancelled.cancel()
        expected = {succeeded.id: "SUCCESS", unreadable.id: "FAILURE", cancelled.id: "REVOKED"}

        def states():
            tasks = fetch("/api/tasks") or {}
            return {job: tasks[job]["state"] for job in expected if job in tasks}

        until(lambda: states() == expected, 30)
        tasks = fetch("/api/tasks")
        assert {tasks[job]["name"] for job in expected} == {"convlens.visualize"}
