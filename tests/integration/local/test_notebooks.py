"""The example notebooks run from beginning to end on fewer images; committed outputs are those of committed cells."""

from __future__ import annotations

import nbformat
import pytest
from notebooks import run

from scripts.run_notebooks import NOTEBOOKS, digest

LARGEST = 300_000
"""Bytes of a committed notebook."""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("COUNT", "66")
    run(nbformat.read(path, as_version=4), tmp_path)


def test_the_committed_outputs_are_those_of_the_committed_cells(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata["convlens"]["cells"] == digest(notebook), "run: make notebooks"
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 1
    assert sum("text/html" in output.get("data", {}) for output in outputs) >= 1
    assert path.stat().st_size < LARGEST


def test_there_are_two_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["fine_tuned_model", "ten_thousand_images"]
