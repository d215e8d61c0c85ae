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
    for _ in range(3):
        killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_LOADING], check=False)
        assert killed.returncode == -signal.SIGKILL
    with running(tmp_path, own_valkey) as service:
        first = service.worker("null=null")
        (held,) = set(place.iterdir()) - theirs
        assert not list(held.iterdir())
        second = service.worker("null=null")
        assert held in set(place.iterdir())  # its worker lives
        first.kill()
        first.wait()
        service.worker("null=null")
        assert held not in set(place.iterdir())
        assert second.poll() is None
    assert set(place.iterdir()) == theirs
