"""Every example and the program in the README run unchanged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convlens.local import serving

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    with serving(log=tmp_path_factory.mktemp("up") / "log") as target:
        yield target


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, target, tmp_path):
    assert len(run([example], target, tmp_path).splitlines()) >= 3


def test_the_program_in_the_readme_runs(target, tmp_path):
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(ROOT / "examples" / "photos" / "rocket.jpg", tmp_path / name)
    assert run(["-c", program.replace("localhost:50051", target)], target, tmp_path) == "(1, 3, 14, 14)\n" * 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"maps.png", "arrays.npz"}


def run(arguments, target, folder):
    """Run Python in a folder and return its output."""
    env = os.environ | {"CONVLENS_SERVER": target}
    process = subprocess.run(
        [sys.executable, *arguments], env=env, cwd=folder, check=False, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    return process.stdout
