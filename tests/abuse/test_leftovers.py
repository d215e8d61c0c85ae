"""What a killed worker leaves among temporary files is deleted by the next one, and nothing else is."""

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
    place = tmp_path / "temporary"
    theirs = {place / name for name in ("convlens-payloads", "convlens-worker-notes", "convlens-worker-0123456789ab~")}
    for it in theirs:
        it.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(place))

    def start_and_kill():
        done = subprocess.run([sys.executable, "-c", KILLED_WHILE_LOADING], check=False)
        assert done.returncode == -signal.SIGKILL

    start_and_kill()
    with running(tmp_path, own_valkey) as service:
        worker = service.worker("null=null")
        (held,) = set(place.iterdir()) - theirs
        assert not list(held.iterdir())
        start_and_kill()
        assert held.exists()  # its worker lives
        worker.kill()
        worker.wait()
        service.worker("null=null")
        (found,) = set(place.iterdir()) - theirs
        assert found != held
    assert set(place.iterdir()) == theirs
