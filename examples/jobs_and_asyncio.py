"""Many calls at once from an event loop, and a job that is submitted and read later by its id, in any process."""

import asyncio
import os
from pathlib import Path

from convlens.client import Activations, AsyncClient, TopK

PHOTOS = sorted((Path(__file__).parent / "photos").glob("*.[pj][np]g"))


async def main() -> None:
    """Run both."""
    async with AsyncClient(os.environ.get("CONVLENS_SERVER", "localhost:50051")) as client:
        results = await asyncio.gather(*(client.grad_cam(photo, target=TopK(3)) for photo in PHOTOS))
        for photo, result in zip(PHOTOS, results, strict=True):
            explained = result.explained[0]["grad_cam"]
            labels = ", ".join(explanation.label for explanation in explained)
            print(f"{photo.name}: {result['grad_cam'].shape} for {labels}")

        job = await client.submit(PHOTOS, [Activations(["block4_conv2"], channels=range(5))])
        later = client.job(job.id)
        print(f"job {later.id}: {(await later.result())['activations/block4_conv2'].shape}")


asyncio.run(main())
