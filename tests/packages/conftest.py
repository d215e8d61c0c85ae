"""Environments of their own, outside the repository, into which the distributions are installed from wheels alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

import pytest
from distributions import OWN_PYTHON, PROJECTS, TOP, find_python

TOOLS = TOP / ".venv-packages/bin"
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


class Environment:
    """A virtual environment; its programs run in a folder of their own."""

    def __init__(self, folder, dist, python) -> None:
        self._programs = folder / "bin"
        self.work = folder / "work"
        self._variables = OUTSIDE | {
            "PIP_FIND_LINKS": str(dist),
            "PIP_ONLY_BINARY": ":all:",
            "PIP_NO_COMPILE": "0",  # 0 sets it, as pip has it; few of TensorFlow's 10,000 modules are imported
            "COLUMNS": "100",
        }
        subprocess.run([python, "-m", "venv", folder], check=True)
        self.work.mkdir()

    def run(self, program, *arguments, **variables):
        """Run a program of the environment to its end."""
        command = [self._programs / program, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.work, env=self._variables | variables, capture_output=True, text=True, timeout=1200,
            check=False,
        )  # fmt: skip

    def check(self, program, *arguments, **variables):
        """Run a program that must succeed, and return what it prints to stdout."""
        done = self.run(program, *arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def serving(self, *arguments, **variables):
        """Start `convlens …`, yield the last word of its ready line, and end it by SIGTERM."""
        command = [self._programs / "convlens", *map(str, arguments)]
        log = self.work / f"{arguments[0]}.log"
        with log.open("w") as stderr, subprocess.Popen(
            command, cwd=self.work, env=self._variables | variables, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process:  # fmt: skip
            try:
                line = process.stdout.readline()
                assert line.startswith("ready: "), log.read_text()
                yield line.split()[-1]
            finally:
                process.terminate()
        assert process.returncode == 0, log.read_text()


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """The folder of the wheels and sdists of all distributions."""
    folder = tmp_path_factory.mktemp("dist")
    for part in PROJECTS:
        command = [TOOLS / "python", "-m", "build", "-q", "--no-isolation", "--outdir", folder, TOP / part]
        subprocess.run(command, check=True, capture_output=True)
    return folder


@contextlib.contextmanager
def _environments(dist, tmp_path_factory):
    """Yield a function that installs requirements into an environment, which equal calls share; delete them all."""
    environments = {}

    def install(*requirements, python=OWN_PYTHON):
        key = (python, *requirements)
        if key not in environments:
            interpreter = find_python(python)
            if interpreter is None:
                pytest.skip(f"there is no python{python} on PATH")
            environment = Environment(tmp_path_factory.mktemp("environment"), dist, interpreter)
            environment.check("python", "-m", "pip", "install", "-q", *requirements)
            environments[key] = environment
        return environments[key]

    try:
        yield install
    finally:
        for environment in environments.values():
            shutil.rmtree(environment.work.parent)


@pytest.fixture(scope="module")
def install(dist, tmp_path_factory):
    """A function that installs requirements into an environment, which the tests of a module share."""
    with _environments(dist, tmp_path_factory) as install:
        yield install


@pytest.fixture
def install_once(dist, tmp_path_factory):
    """A function that installs requirements into an environment of one test: several of TensorFlow fill a disk."""
    with _environments(dist, tmp_path_factory) as install:
        yield install


@pytest.fixture(scope="session")
def photo():
    """A photo outside the environments."""
    return TOP / "examples/photos/rocket.jpg"
