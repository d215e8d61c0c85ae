"""The distributions of this repository, the Pythons they are for, and what README and docs/install.md say of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

TOP = Path(__file__).parents[2]
PROJECTS = {
    file.parent.name: tomllib.loads(file.read_text())["project"] for file in sorted(TOP.glob("*/pyproject.toml"))
}
"""The table `project` of each distribution, by its folder."""
FOLDERS = {project["name"]: folder for folder, project in PROJECTS.items()}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
TENSORFLOW_PYTHONS = ("3.11", "3.12", "3.13")
"""Those that TensorFlow and tf-keras have releases for."""
OWN_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def parse_requirements(folder):
    """Return what a distribution needs without extras."""
    return [Requirement(text) for text in PROJECTS[folder]["dependencies"]]


def parse_extras(folder):
    """Return what the extras of a distribution need."""
    extras = PROJECTS[folder].get("optional-dependencies", {})
    return [Requirement(text) for texts in extras.values() for text in texts]


def needs_tensorflow(folder):
    """Return True if a distribution needs TensorFlow, by itself or by another distribution."""
    names = [requirement.name for requirement in parse_requirements(folder)]
    return "tensorflow" in names or any(needs_tensorflow(FOLDERS[name]) for name in names if name in FOLDERS)


def collect_lowest_versions(*folders):
    """Return the lowest versions that distributions with their extras admit together, by the package's name."""
    lowest = {}
    for folder in folders:
        for requirement in parse_requirements(folder) + parse_extras(folder):
            for bound in requirement.specifier:
                if bound.operator == ">=":
                    lowest[requirement.name] = max(lowest.get(requirement.name, "0"), bound.version, key=Version)
    return lowest


def find_python(version):
    """Return the interpreter of a version; None if this machine has none."""
    if version == OWN_PYTHON:
        return sys.executable
    program = shutil.which(f"python{version}")
    if program is None or subprocess.run([program, "--version"], capture_output=True, check=False).returncode:
        return None
    return program


def read_table(page, heading):
    """Return the cells of the first table below a heading of a Markdown page, without its head."""
    lines = page.partition(f"\n## {heading}\n")[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| ---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def find_code_spans(cell):
    """Return what stands in backticks."""
    return re.findall("`([^`]+)`", cell)
