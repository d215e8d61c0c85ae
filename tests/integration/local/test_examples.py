"""Every example runs as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convlens.local import serving

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    with serving(log=tmp_path_factory.mktemp("up") / "log") as target:
        yield target


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example, target, tmp_path):
    env = os.environ | {"CONVLENS_SERVER": target}
    done = subprocess.run(
        [sys.executable, example], env=env, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3
