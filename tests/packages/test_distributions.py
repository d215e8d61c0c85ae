"""The built distributions: what an index checks, what a stranger finds in them, and the Pythons that they name."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from email.parser import Parser

import pytest
from distributions import PROJECTS, PYTHONS, TENSORFLOW_PYTHONS, TOP, needs_tensorflow

pytestmark = [pytest.mark.packages, pytest.mark.timeout(600)]
TOOLS = TOP / ".venv-packages/bin"
PYTHON_CLASSIFIER = "Programming Language :: Python :: 3."


@pytest.mark.parametrize(
    ("command", "pattern"), [(("twine", "check", "--strict"), "*"), (("check-wheel-contents",), "*.whl")]
)
def test_every_distribution_passes_the_checks_of_an_index(dist, command, pattern):
    tool, *flags = command
    done = subprocess.run([TOOLS / tool, *flags, *dist.glob(pattern)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("part", PROJECTS)
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
    names = {text.partition(",")[0] for text in metadata.get_all("Project-URL")}
    assert names == {"Documentation", "Source", "Issues", "Changelog"}
    with tarfile.open(dist / f"{stem}.tar.gz") as sdist:
        assert {f"{stem}/LICENSE", f"{stem}/README.md", f"{stem}/pyproject.toml"} <= set(sdist.getnames())


@pytest.mark.parametrize("part", PROJECTS)
def test_the_classifiers_name_the_pythons_that_are_tested(part):
    named = [text.rpartition(" ")[2] for text in PROJECTS[part]["classifiers"] if text.startswith(PYTHON_CLASSIFIER)]
    assert tuple(named) == (TENSORFLOW_PYTHONS if needs_tensorflow(part) else PYTHONS)
