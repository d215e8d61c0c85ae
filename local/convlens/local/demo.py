"""`make demo`: explain photos end to end on this machine. python -m convlens.local.demo OUT PHOTO…

With ImageNet's weights the stock VGG16 explains the photos. Where they are not available, the bundled `shapes` explains
scenes of the kind it was trained on, and the photos are used only for the outputs of its layers.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from convlens.client import Activations, Client, GradCAM, Result, Saliency, TopK
from convlens.jobs.runtime.temporary import locked_folder
from convlens.local.serving import serving
from convlens.worker.shapes import LABELS, draw

MODELS: Final = ("shapes=shapes", "vgg16=imagenet")
LAYERS: Final = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv2")
"""The layers shown in the article on which this project is based."""
MAPS: Final = (Saliency(), Saliency("guided"), GradCAM(), Activations(LAYERS, range(5)))
SCENES: Final = (0, 4, 6, 8)
SEED: Final = 2026


def main(argv: list[str]) -> int:
    """Run the demo and return the exit status."""
    out, photos = Path(argv[0]), [Path(name) for name in argv[1:]]
    out.mkdir(parents=True, exist_ok=True)
    log = out / "up.log"
    print("starting Valkey, a worker and a server on this machine …", flush=True)
    with serving(models=MODELS, log=log) as target, Client(target) as client:
        print(f"serving at {target}; log: {log}\n")
        stock = "vgg16" in {model.name for model in client.models()}
        if not stock:
            print(
                "ImageNet's weights are not in Keras' cache and cannot be downloaded. The bundled model `shapes` "
                "explains\ndrawn scenes instead; of the photos, which it does not know, only layer outputs are drawn.\n"
            )
        for result, folder in _compute(client, photos, out, stock=stock):
            _save(result, folder)
    print(f"\nThe pictures are in {out.resolve()}")
    return 0


def _compute(client: Client, photos: Sequence[Path], out: Path, *, stock: bool) -> Iterator[tuple[Result, Path]]:
    """Yield each result and the folder for its pictures."""
    if stock:
        for photo in photos:
            yield client.visualize(photo, MAPS, model="vgg16"), out / photo.stem
        return
    with locked_folder(Path(tempfile.gettempdir()), "demo") as folder:
        for index in SCENES:
            scene = draw(SEED, index)
            path = folder / f"{LABELS[scene.label]}.png"
            Image.fromarray(scene.image).save(path)
            yield client.visualize(path, MAPS, model="shapes"), out / path.stem
        best = client.visualize(path, [GradCAM()], model="shapes", target=TopK(3))
        yield best, out / f"{path.stem}_best_three"
    for photo in photos:
        yield client.activations(photo, LAYERS, range(5), model="shapes"), out / photo.stem


def _save(result: Result, folder: Path) -> None:
    """Save the pictures and print one line of predictions and times."""
    written = result.save(folder)
    predictions = " ".join(
        f"{best.label} {best.probability:.1%}" for best in result.predictions[0][:3] if best.probability is not None
    )
    time = result.timing
    print(
        f"{folder.name:20} {predictions or 'layer outputs only':42} "
        f"decoded {time.decode * 1e3:4.0f} ms, computed {time.compute * 1e3:4.0f} ms"
        f"   {', '.join(path.name for path in written)}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
