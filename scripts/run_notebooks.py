"""Run the example notebooks in place, so that they are committed with their outputs. make notebooks

Each records the digest of its cells, by which tests/integration/local/test_notebooks.py sees that outputs are stale.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
NOTEBOOKS: Final = sorted((ROOT / "examples").glob("*.ipynb"))
START_UP: Final = re.compile(
    r"^(WARNING: All log messages before absl|[IWE]\d{4} \d\d:|To enable the following instructions).*\n", re.MULTILINE
)
TIMEOUT: Final = 600.0
"""Seconds of a cell."""


def digest(notebook: Any) -> str:
    """Return a digest of the sources of a notebook's cells."""
    return hashlib.sha256("\0".join(cell.source for cell in notebook.cells).encode()).hexdigest()


def remove_start_up_messages(cell: Any) -> None:
    """Remove from a cell's outputs what TensorFlow's libraries print as they start, which Python cannot hide."""
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            output.text = START_UP.sub("", output.text)
    if cell.cell_type == "code":
        cell.outputs = [output for output in cell.outputs if output.get("text") != ""]


def main(names: list[str]) -> None:
    """Run the notebooks of these names, by default all."""
    import nbformat
    from nbclient import NotebookClient

    for path in NOTEBOOKS:
        if names and path.stem not in names:
            continue
        notebook = nbformat.read(path, as_version=4)
        resources = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=TIMEOUT, coalesce_streams=True, resources=resources).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times
            remove_start_up_messages(cell)
        notebook.metadata = {
            "convlens": {"cells": digest(notebook)},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        nbformat.write(notebook, path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
