"""Notebooks run by a kernel of this interpreter, as Jupyter runs them."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient


def run_cells(*cells: str, folder: Path) -> list[list[dict]]:
    """Run cells of code in a folder; return the outputs of each. CellExecutionError if one raises."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    run(notebook, folder)
    return [cell.outputs for cell in notebook.cells]


def run(notebook: nbformat.NotebookNode, folder: Path, timeout: float = 240) -> None:
    """Run a notebook in a folder and keep its outputs in it. CellExecutionError if a cell raises."""
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=timeout, coalesce_streams=True, resources=resources).execute()
