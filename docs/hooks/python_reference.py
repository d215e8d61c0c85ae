"""The reference of the Python API as Markdown: names under headings; mkdocstrings fills in their docstrings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import convlens.client
from convlens.client import keras_vis, testing

INTRODUCTION: Final = """# Python API

Everything that `convlens.client` exports, and what tests and notebooks use beside it. Modules that are not named here
may change.
"""
GROUPS: Final[dict[str, Sequence[str]]] = {
    "Clients": ("Client", "AsyncClient", "TLS"),
    "Jobs": ("Job", "AsyncJob", "JobStatus", "JobState", "JobErrorInfo"),
    "Visualizations": ("Visualization", "Saliency", "GradCAM", "Occlusion", "Activations", "Output", "Blur"),
    "Targets": ("TopK", "ALL_UNITS"),
    "Results": ("Result", "Prediction", "MapExplanation", "Explanation", "Timing"),
    "Models and servers": ("ModelCard", "Layer", "RefusedModel", "ServerInfo", "Limits"),
    "Exceptions": tuple(name for name in convlens.client.__all__ if name in vars(convlens.client.errors)),
}
"""Names of convlens.client by heading; those that are in none come last."""
WITHOUT_MEMBERS: Final = {
    "AsyncClient": "The methods of [Client][convlens.client.Client], awaited; `map` and `jobs` are asynchronous.",
    "AsyncJob": "The methods of [Job][convlens.client.Job], awaited; `watch` is asynchronous.",
}
"""Classes whose methods are those of another one."""


def render() -> str:
    """Return the page, with a directive of mkdocstrings for each name."""
    grouped = {name for names in GROUPS.values() for name in names}
    others = [name for name in convlens.client.__all__ if name not in grouped]
    sections = [INTRODUCTION]
    for heading, names in (GROUPS | {"More": others}).items():
        if names:
            sections.append(f"## {heading}\n\n" + "\n".join(map(_render_directive, names)))
    for module, names in (
        (testing, testing.__all__),
        (keras_vis, ("Model", "find_layer_idx", "visualize_saliency", "visualize_cam")),
    ):
        sections.append(f"## {module.__name__}\n\n" + "\n".join(f"::: {module.__name__}.{name}\n" for name in names))
    sections.append("## convlens.local\n\n::: convlens.local.serving\n")
    return "\n".join(sections)


def _render_directive(name: str) -> str:
    directive = f"::: convlens.client.{name}\n"
    if name in WITHOUT_MEMBERS:
        directive += f"    options: {{members: false, inherited_members: false}}\n\n{WITHOUT_MEMBERS[name]}\n"
    return directive
