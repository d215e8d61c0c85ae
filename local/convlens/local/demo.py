"""`make demo`: the whole chain on this machine, from photos to pictures. python -m convlens.local.demo OUT PHOTO…

With ImageNet's weights the stock VGG16 looks at the photos. Where they cannot be had, the bundled `shapes` looks at
scenes that it knows, and the photos serve for the outputs of its layers.
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
"""The four that the article this project began with drew."""
MAPS: Final = (Saliency(), Saliency("guided"), GradCAM(), Activations(LAYERS, range(5)))
SCENES: Final = (0, 4, 6, 8)
SEED: Final = 2026


def main(argv: list[str]) -> int:
    """Runs it; returns the exit status."""
    out, photos = Path(argv[0]), [Path(it) for it in argv[1:]]
    out.mkdir(parents=True, exist_ok=True)
    log = out / "up.log"
    print("starting Valkey, a worker and a server on this machine …", flush=True)
    with serving(models=MODELS, log=log) as target, Client(target) as client:
        print(f"serving at {target}; their log is {log}\n")
        stock = "vgg16" in {model.name for model in client.models()}
        if not stock:
            print(
                "ImageNet's weights are neither in Keras' cache nor to be downloaded: the bundled model `shapes` looks "
                "at scenes it knows instead,\nand photos, of which it knows nothing, are drawn as its layers see them\n"
            )
        for result, folder in _results(client, photos, out, stock=stock):
            _tell(result, folder)
    print(f"\nThe pictures are in {out.resolve()}")
    return 0


def _results(client: Client, photos: Sequence[Path], out: Path, *, stock: bool) -> Iterator[tuple[Result, Path]]:
    """What was computed, and the folder its pictures go to."""
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


def _tell(result: Result, folder: Path) -> None:
    """Saves the pictures; one line on what was found, and how fast."""
    written = result.save(folder)
    seen = " ".join(
        f"{it.label} {it.probability:.1%}" for it in result.predictions[0][:3] if it.probability is not None
    )
    time = result.timing
    print(
        f"{folder.name:20} {seen or 'layer outputs only':42} "
        f"decoded {time.decode * 1e3:4.0f} ms, computed {time.compute * 1e3:4.0f} ms"
        f"   {', '.join(path.name for path in written)}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
