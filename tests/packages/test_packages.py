"""The distributions as a stranger gets them: built, checked, and installed from wheels alone, outside the repository.

Needs a package index: `make packages`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

import convlens.local

pytestmark = [pytest.mark.packages, pytest.mark.timeout(1500)]
TOP = Path(__file__).parents[2]
TOOLS = TOP / ".venv-packages/bin"
PARTS = ("proto", "jobs", "server", "worker", "client", "web", "local")
PROJECTS = {part: tomllib.loads((TOP / part / "pyproject.toml").read_text())["project"] for part in PARTS}
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
CALL = """
import sys
import numpy as np
from convlens.client import Client, GradCAM
from convlens.v1 import tensors

array = np.arange(6, dtype=np.float32).reshape(2, 3)
assert (tensors.decode(tensors.encode(array)) == array).all()
image = np.zeros((224, 224, 3), np.uint8)
with Client(sys.argv[1]) as client:
    assert client.grad_cam(image)["grad_cam"].shape == (1, 14, 14)
    assert len(list(client.map([image] * 3, [GradCAM()]))) == 3
"""


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """The folder of the wheels and sdists of all seven."""
    folder = tmp_path_factory.mktemp("dist")
    for part in PARTS:
        command = [TOOLS / "python", "-m", "build", "-q", "--no-isolation", "--outdir", folder, TOP / part]
        subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def install(dist, tmp_path_factory):
    """Install requirements from wheels into an environment of their own; return its folder of programs."""

    def install(*requirements):
        folder = tmp_path_factory.mktemp("environment")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        command = [folder / "bin/python", "-m", "pip", "install", "-q", "--only-binary=:all:", "--find-links", dist]
        subprocess.run([*command, *requirements], cwd=folder, env=OUTSIDE, check=True)
        return folder / "bin"

    return install


def run(*command):
    return subprocess.run(command, cwd="/", env=OUTSIDE, capture_output=True, text=True, timeout=300, check=False)


def lowest(part):
    """The lowest versions that a distribution admits of what it needs itself."""
    for text in PROJECTS[part]["dependencies"]:
        requirement = Requirement(text)
        floors = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        yield from (f"{requirement.name}=={floor}.*" for floor in floors)


def test_every_distribution_passes_the_checks_of_an_index(dist):
    for command in (["twine", "check", "--strict", *dist.iterdir()], ["check-wheel-contents", *dist.glob("*.whl")]):
        done = run(TOOLS / command[0], *command[1:])
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("part", PARTS)
def test_wheel_and_sdist_have_readme_licence_and_types(dist, part):
    stem = f"{PROJECTS[part]['name'].replace('-', '_')}-{PROJECTS[part]['version']}"
    with zipfile.ZipFile(dist / f"{stem}-py3-none-any.whl") as wheel:
        files = set(wheel.namelist())
        metadata = Parser().parsestr(wheel.read(f"{stem}.dist-info/METADATA").decode())
        assert wheel.read(f"{stem}.dist-info/licenses/LICENSE") == (TOP / "LICENSE").read_bytes()
    packages = {path.split("/")[1] for path in files if path.startswith("convlens/")}
    assert packages
    assert all(f"convlens/{package}/py.typed" in files for package in packages)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith(f"# {PROJECTS[part]['name']}\n")
    with tarfile.open(dist / f"{stem}.tar.gz") as sdist:
        assert {f"{stem}/LICENSE", f"{stem}/README.md", f"{stem}/pyproject.toml"} <= set(sdist.getnames())


@pytest.mark.parametrize("bound", ["lowest", "newest"])
def test_the_sdk_calls_a_server_from_wheels_alone(install, bound):
    if bound == "lowest" and sys.version_info >= (3, 13):
        pytest.skip("the lowest versions have no wheels for this Python")
    versions = sorted({*lowest("proto"), *lowest("client")}) if bound == "lowest" else []
    programs = install("convlens-client", *versions)
    with convlens.local.serving(models=["null=null"]) as target:
        done = run(programs / "python", "-W", "error", "-c", CALL, target)
    assert done.returncode == 0, done.stderr
    done = run(programs / "convlens", "saliency", "photo.jpg")
    assert (done.returncode, done.stderr) == (
        2, '`convlens saliency` is not installed here: pip install "convlens-client[cli]"\n'
    )  # fmt: skip


def test_the_command_line_extra_brings_the_commands_of_the_client(install):
    programs = install("convlens-client[cli]")
    assert "grad-cam" in run(programs / "convlens", "--help").stdout
    missing = run(programs / "convlens", "server")
    assert missing.stderr.strip() == "`convlens server` is not installed here: pip install convlens-server"


def test_the_gateway_serves_the_page_from_wheels_alone(install):
    programs = install("convlens-web")
    command = [programs / "convlens", "web", "--port", "0"]
    with subprocess.Popen(command, cwd="/", env=OUTSIDE, stdout=subprocess.PIPE, text=True) as web:
        url = f"http://{web.stdout.readline().split()[-1]}"
        assert httpx.get(url).headers["content-type"].startswith("text/html")
        assert httpx.get(f"{url}/static/main.js").is_success
        web.terminate()


def test_the_server_brings_its_commands_without_the_client(install):
    programs = install("convlens-server")
    assert "--redis-url" in run(programs / "convlens", "server", "--help").stdout
    assert "convlens server" in run(programs / "convlens").stdout
    assert "sha256" in run(programs / "convlens", "token", "new", "--tenant", "a", "--role", "read").stdout
