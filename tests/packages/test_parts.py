"""Each row of README's table of what to install, alone: a whole service, and its parts in environments of their own."""

from __future__ import annotations

import json
import urllib.request

import pytest
from distributions import PYTHONS, TENSORFLOW_PYTHONS, TOP, find_code_spans, read_table

import convlens.local

pytestmark = [pytest.mark.packages, pytest.mark.timeout(1500)]
ROWS = {
    find_code_spans(install)[0].removeprefix("pip install ").strip('"'): find_code_spans(run)
    for _, install, run in read_table((TOP / "README.md").read_text(), "Install")
}
"""What README runs, by what it installs."""
OVERLAY = """
import sys
from PIL import Image
from convlens.client import Client

with Client(sys.argv[1]) as client:
    client.grad_cam(sys.argv[2]).overlay("grad_cam").save("overlay.png")
assert Image.open("overlay.png").size == Image.open(sys.argv[2]).size
"""


def assert_explains(shell, target, photo):
    """Assert that `convlens visualize` writes pictures and arrays of a photo."""
    assert f"{photo.name}: " in shell.check("convlens", "--server", target, "visualize", photo, "-o", "out")
    files = {path.name for path in (shell.work / "out" / photo.stem).iterdir()}
    assert files == {"maps.png", "arrays.npz"}


@pytest.mark.parametrize("requirement", [row for row in ROWS if "gpu" not in row])
def test_what_readme_runs_is_there_after_what_it_installs(install, requirement):
    environment = install(requirement)
    for code in ROWS[requirement]:
        if code.startswith("from "):
            environment.check("python", "-W", "error", "-c", code)
        elif code.startswith("convlens "):
            command = next(word for word in code.split()[1:] if not word.startswith("-") and ":" not in word)
            assert f"Usage: convlens {command}" in environment.check("convlens", command, "--help")


def test_a_worker_for_gpus_finds_versions_of_all_it_needs(install):
    worker = install("convlens-worker[xrai]")
    assert "nvidia" in worker.check("python", "-m", "pip", "install", "--dry-run", "convlens-worker[gpu,xrai]")


@pytest.mark.parametrize("python", TENSORFLOW_PYTHONS)
def test_one_install_explains_a_photo(install_once, photo, python):
    environment = install_once("convlens", python=python)
    with environment.serving("up", "--port", "0") as target:
        assert_explains(environment, target, photo)
        environment.check("python", "-c", OVERLAY, target, photo)
        (line,) = (environment.work / "up.log").read_text().splitlines()
        assert line.startswith("convlens up: starting; the log of its processes is ")


@pytest.mark.parametrize("python", PYTHONS)
def test_server_worker_and_shell_explain_a_photo_each_in_its_own_environment(install, redis_url, photo, python):
    server, shell = install("convlens-server", python=python), install("convlens-client[cli]", python=python)
    worker = install("convlens-worker[xrai]")
    with (
        worker.serving("worker", CONVLENS_REDIS_URL=redis_url),
        server.serving("server", "--port", "0", CONVLENS_REDIS_URL=redis_url) as target,
    ):
        assert "no problems" in server.check("convlens", "doctor", "--server", target, CONVLENS_REDIS_URL=redis_url)
        assert_explains(shell, target, photo)
        shell.check("python", "-c", OVERLAY, target, photo)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_gateway_serves_its_page_and_the_models_of_a_server(install, python):
    gateway = install("convlens-web", python=python)
    with (
        convlens.local.serving(models=["null=null"]) as target,
        gateway.serving("web", "--server", target, "--port", "0") as address,
        urllib.request.urlopen(f"http://{address}/v1/models", timeout=60) as models,
        urllib.request.urlopen(f"http://{address}/", timeout=60) as page,
    ):
        assert [model["name"] for model in json.load(models)["models"]] == ["null"]
        assert b"<!doctype html>" in page.read().lower()


def test_a_command_of_another_distribution_says_what_to_install(install):
    for requirement, command, missing in (
        ("convlens-client", "saliency", '"convlens-client[cli]"'),
        ("convlens-client[cli]", "server", "convlens-server"),
        ("convlens-client[cli]", "up", "convlens"),
        ("convlens-server", "worker", "convlens-worker"),
        ("convlens-server", "models", '"convlens-client[cli]"'),
    ):
        done = install(requirement).run("convlens", command)
        assert done.stderr.strip() == f"`convlens {command}` is not installed here: pip install {missing}"
        assert done.returncode == 2
