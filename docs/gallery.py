"""Draw the pictures of the documentation from one scene of `shapes`. make docs-pictures

drawn.json records what they were drawn from; tests/unit/client/test_docs_pictures.py fails when they are stale.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final, get_args

ROOT: Final = Path(__file__).parent.parent
PICTURES: Final = ROOT / "docs" / "pictures"
RECORD: Final = PICTURES / "drawn.json"
SOURCES: Final = (
    "docs/gallery.py",
    "client/convlens/client/drawing.py",
    "client/convlens/client/figures.py",
    "client/convlens/client/notebook_figure.py",
    "worker/convlens/worker/shapes/weights.npz",
)
SCENE: Final = (2026, 4)
LAYERS: Final = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv2")


def digest(*names: str) -> str:
    """Return a digest of files, by their names below ROOT."""
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in names)).hexdigest()


def draw_kinds(result: Any) -> Any:
    """Return a figure of every kind of picture, of an unsigned map and of a signed one."""
    from convlens.client.drawing import Kind
    from convlens.client.notebook_figure import NotebookFigure

    kinds = get_args(Kind)
    figure = NotebookFigure(figsize=(len(kinds) * 2.4, 6.2), layout="constrained")
    rows = figure.subplots(2, len(kinds))
    for row, name in zip(rows, ("grad_cam", "occlusion"), strict=True):
        for at, kind in zip(row, kinds, strict=True):
            result.figure(name=name, ax=at, kind=kind, background="gray" if "heat" in kind else "color")
            at.set_title(kind, fontsize=10, loc="left", pad=16)
    return figure


def main() -> None:
    """Compute the maps and draw the pictures."""
    from convlens.client import Activations, Client, GradCAM, Occlusion, Saliency
    from convlens.client.options import CAM_METHODS, SALIENCY_METHODS
    from convlens.local import serving
    from convlens.worker.shapes import draw

    image = draw(*SCENE).image
    signed = [GradCAM(signed=True), Saliency(signed=True), Saliency("integrated_gradients", signed=True)]
    methods = [*map(Saliency, SALIENCY_METHODS), *(GradCAM(method=method) for method in CAM_METHODS), Occlusion()]
    with serving(log=Path("/dev/null")) as target, Client(target) as client:
        everything = client.visualize(image, [*methods, *signed])
        first = client.visualize(image, [Saliency(), Saliency("guided"), GradCAM()])
        layers = client.visualize(image, [Activations(LAYERS, range(5))])
    drawn = {
        "gallery.png": (everything.figure(background="gray"), everything),
        "maps.png": (first.figure(background="gray"), first),
        "layers.jpg": (layers.figure(), layers),
        "kinds.png": (draw_kinds(everything), ["grad_cam", "occlusion"]),
    }
    shown = {}
    for name, (figure, names) in drawn.items():
        (PICTURES / name).write_bytes(figure.encode(Path(name).suffix.strip(".")))
        shown[name] = {"sha256": digest(f"docs/pictures/{name}"), "shows": list(names)}
    RECORD.write_text(json.dumps({"sources": digest(*SOURCES), "pictures": shown}, indent=1) + "\n")


if __name__ == "__main__":
    main()
