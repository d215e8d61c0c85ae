"""A worker deletes the temporary files of killed workers, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys

from processes import running

KILLED_WHILE_LOADING = """if True:
    import os, signal, tempfile
    from convlens.worker import __main__ as worker

    def load(settings):
        tempfile.NamedTemporaryFile(prefix="__autograph_generated_file", delete=False)  # as TensorFlow does
        tempfile.mkdtemp(prefix="convlens-")  # as TemporaryDirectory does for the weights of an archive
        os.kill(os.getpid(), signal.SIGKILL)

    worker.load_models = load
    worker.main(["--model", "null=null"])
"""


def test_a_killed_workers_temporary_files_are_deleted_by_the_next(tmp_path, own_valkey, monkeypatch):
    folder = tmp_path / "temporary"
    foreign = {
        folder / name for name in ("convlens-payloads", "convlens-worker-notes", "convlens-worker-0123456789ab~")
    }
    for path in foreign:
        path.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(folder))

    def start_and_kill():
        process = subprocess.run([sys.executable, "-c", KILLED_WHILE_LOADING], check=False)
        assert process.returncode == -signal.SIGKILL

    start_and_kill()
    with running(tmp_path, own_valkey) as service:
        worker = service.worker("null=null")
        (first,) = set(folder.iterdir()) - foreign
        assert not list(first.iterdir())
        start_and_kill()
        assert first.exists()  # its worker still runs
        worker.kill()
        worker.wait()
        service.worker("null=null")
        (second,) = set(folder.iterdir()) - foreign
        assert second != first
    assert set(folder.iterdir()) == foreign
