"""Explain a photo and save the maps as arrays and as a picture. Needs a server: convlens up --port 50051"""

import os
from pathlib import Path

from convlens.client import Client, GradCAM, Saliency

PHOTO = Path(__file__).parent / "photos" / "chelsea.png"

with Client(os.environ.get("CONVLENS_SERVER", "localhost:50051")) as client:
    result = client.visualize(PHOTO, [Saliency(), Saliency(method="guided"), GradCAM()])

print(result["saliency"].shape, result["grad_cam"].shape)  # (1, 224, 224) (1, 14, 14)
for best in result.predictions[0][:3]:
    print(f"{best.label or best.index}: {best.probability:.1%}")
print(*result.save("out/quickstart"), sep="\n")
