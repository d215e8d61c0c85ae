"""Draw docs/pictures/gallery.png: every method on one scene of `shapes`. python docs/gallery.py"""

from pathlib import Path

from convlens.client import Client, GradCAM, Occlusion, Saliency
from convlens.client.options import CAM_METHODS, SALIENCY_METHODS
from convlens.local import serving
from convlens.worker.shapes import draw

SCENE = draw(2026, 4)
OUT = Path(__file__).parent / "pictures" / "gallery.png"

with serving(log=Path("/dev/null")) as target, Client(target) as client:
    saliency = [Saliency(method) for method in SALIENCY_METHODS]
    result = client.visualize(
        SCENE.image, [*saliency, *(GradCAM(method=method) for method in CAM_METHODS), Occlusion()]
    )
result.figure().savefig(OUT, dpi=80, bbox_inches="tight", facecolor="white")
print(OUT)
