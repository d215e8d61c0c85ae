"""docs/install.md: its tables are those of the pyproject.toml files and of the command line."""

from __future__ import annotations

import re

import pytest
import typer
from distributions import (
    PROJECTS,
    PYTHONS,
    TENSORFLOW_PYTHONS,
    TOP,
    collect_lowest_versions,
    find_code_spans,
    read_table,
)

from convlens.client.cli import app

pytestmark = pytest.mark.packages
PAGE = (TOP / "docs/install.md").read_text()
DISTRIBUTIONS = {find_code_spans(row[0])[0]: row for row in read_table(PAGE, "Distributions")}
INDIRECT = {"convlens-proto", "convlens-jobs"}
"""Distributions that come with others."""
ENTRIES = {
    project["name"]: set(project.get("entry-points", {}).get("convlens.commands", ())) for project in PROJECTS.values()
}
REQUIREMENTS = {
    "protobuf": "protobuf",
    "gRPC": "grpcio",
    "NumPy": "numpy",
    "Celery": "celery",
    "TensorFlow": "tensorflow",
}
"""What rows of the table of versions are called on an index."""


def test_the_page_lists_every_distribution_that_is_installed_by_its_name():
    assert DISTRIBUTIONS.keys() == {project["name"] for project in PROJECTS.values()} - INDIRECT


def test_the_page_lists_the_subcommands_of_each_distribution():
    own = set(typer.main.get_command(app).commands) - set().union(*ENTRIES.values()) - {"config"}
    subcommands = {name: set(find_code_spans(row[-1])) - {"[cli]"} for name, row in DISTRIBUTIONS.items()}
    assert subcommands == {name: ENTRIES[name] for name in DISTRIBUTIONS} | {"convlens-client": own}


def test_the_page_lists_the_extras_of_each_distribution():
    listed = {
        (extra, name)
        for row in read_table(PAGE, "Extras")
        for extra in find_code_spans(row[0])
        for name in find_code_spans(row[1])
    }
    assert listed == {
        (extra, project["name"])
        for project in PROJECTS.values()
        if project["name"] not in INDIRECT
        for extra in project.get("optional-dependencies", ())
    }


def test_the_page_states_the_lowest_versions_that_the_distributions_admit():
    stated = dict(read_table(PAGE, "Versions that fit together"))
    sdk, everything = collect_lowest_versions("proto", "client"), collect_lowest_versions(*PROJECTS)
    for what, name in REQUIREMENTS.items():
        first, *higher = re.findall(r"[\d.]+(?= (?:or newer|to ))|^[\d.]+$", stated[what])
        assert first == sdk.get(name, everything[name])
        assert [everything[name]] == (higher or [first])
    first, last = re.findall(r"3\.\d+", stated["Python"])[:2]
    assert (first, last) == (PYTHONS[0], PYTHONS[-1])
    assert stated["Python"].endswith(f" to {TENSORFLOW_PYTHONS[-1]}")
    assert {project["requires-python"] for project in PROJECTS.values()} == {f">={PYTHONS[0]}"}
