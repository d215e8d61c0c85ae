"""The Python blocks of each page are one program, which passes mypy --strict and runs.

Most run against the SDK's fake server. Where a page needs real maps or a real model, it runs on a real one: README.md
in tests/integration/local/test_examples.py, the block of docs/testing.md in tests/contract/test_fake_server.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from markdown_blocks import PAGES, ROOT, find_calls, find_commands, find_python

from convlens.client.testing import serve, vgg16
from convlens.local import serving
from convlens.local.certificates import ensure_certificates

WITH_CODE = [page for page in PAGES if find_python(page)]
OWN_MODEL = ROOT / "docs" / "own-model.md"
TF_KERAS_VIS = ROOT / "docs" / "coming-from-tf-keras-vis.md"
ON_A_REAL_SERVICE = (OWN_MODEL, TF_KERAS_VIS)
TESTS = ROOT / "docs" / "testing.md"
ADDRESS = "localhost:50051"
LABELS = [{0: "tench", 207: "golden retriever"}.get(index, f"class {index}") for index in range(1000)]
FOR_CALLS = 'photo = image = "photo.jpg"\nnames = ["block1_conv1"]\n'
"""What the calls in tables take."""


def show_path(page):
    return str(page.relative_to(ROOT))


def build_program(page, *, is_run):
    """Return a page's program: its blocks, and the calls in its tables where it compares libraries."""
    blocks = [block.code for block in find_python(page) if not (is_run and block.not_run)]
    if page.name.startswith("coming-from-") and page not in ON_A_REAL_SERVICE:
        blocks += ["from convlens.client import ALL_UNITS, Client\n", f'client = Client("{ADDRESS}")\n{FOR_CALLS}']
        blocks += [f"{call}\n" for call in find_calls(page)]
    return "\n".join(blocks)


def run(program, target, folder):
    """Run a program in a folder, with the address of the documentation replaced by `target`."""
    process = subprocess.run(
        [sys.executable, "-c", program.replace(ADDRESS, target)],
        env=os.environ | {"MPLBACKEND": "Agg"}, cwd=folder, check=False, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


@pytest.fixture
def folder(tmp_path):
    """A folder with the files that the documentation names."""
    for name in ("photo.jpg", "dog.jpg", "a.jpg", "b.jpg", "c.jpg", "photos/a.jpg", "photos/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "examples" / "photos" / "rocket.jpg", tmp_path / name)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.fixture(scope="module")
def fake():
    with serve(models=[vgg16("vgg16", labels=LABELS)]) as target:
        yield target


def test_programs_pass_mypy(tmp_path):
    assert len(WITH_CODE) > 12
    for page in WITH_CODE:
        stem = re.sub(r"\W", "_", show_path(page))
        (tmp_path / f"{stem}.py").write_text(build_program(page, is_run=False), encoding="utf-8")
    parts = ("proto", "jobs", "server", "worker", "client", "local")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path / "cache",
         "--ignore-missing-imports", "--scripts-are-modules", tmp_path],
        env=os.environ | {"MYPYPATH": os.pathsep.join(str(ROOT / part) for part in parts)},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("page", [page for page in WITH_CODE if page not in (*ON_A_REAL_SERVICE, TESTS)], ids=show_path)
def test_a_program_runs(page, fake, folder):
    ensure_certificates(folder, ["localhost"])
    run(build_program(page, is_run=True), fake, folder)


def test_the_commands_of_the_first_picture_run_and_write_the_files_that_it_names(fake, folder):
    page = ROOT / "docs" / "first-picture.md"
    commands = [command[1:] for command in find_commands(page) if command[0] == "convlens" and command[1] != "up"]
    assert len(commands) > 5
    for arguments in commands:
        command = [sys.executable, "-m", "convlens.client", "--server", fake, *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    for name in re.findall(r"`(out/\S+)`", page.read_text(encoding="utf-8")):
        assert (folder / name).is_file()


@pytest.mark.timeout(600)
def test_an_own_model_is_checked_served_and_compared_with_tf_keras_vis(folder):
    saved, explained = (block.code for block in find_python(OWN_MODEL))
    run(saved, "", folder)
    check = [sys.executable, "-m", "convlens.client", "model", "check", "scan.keras,labels=scan.txt"]
    checked = subprocess.run(check, cwd=folder, check=True, capture_output=True, text=True)
    assert "conv2" in checked.stdout
    with serving(models=[f"scan={folder}/scan.keras,labels={folder}/scan.txt"], log=folder / "log") as target:
        printed = run(explained, target, folder)
        assert printed.startswith("('healthy', 'benign', 'malignant') none")
        assert printed.splitlines()[-1] == "(1, 2, 62, 62)"
        save = "\nnp.savez('maps', their_saliency=their_saliency, their_cam=their_cam, saliency=saliency, cam=cam)"
        run(build_program(TF_KERAS_VIS, is_run=True) + save, target, folder)
    maps = np.load(folder / "maps.npz")
    for name in ("saliency", "cam"):
        np.testing.assert_allclose(maps[name], maps[f"their_{name}"], rtol=1e-3, atol=1e-4 * maps[name].max())


def test_a_block_that_is_not_run_says_why():
    marked = [block for page in PAGES for block in find_python(page) if block.not_run]
    comments = sum(Path(page).read_text(encoding="utf-8").count("<!-- not run:") for page in PAGES)
    assert len(marked) == comments
