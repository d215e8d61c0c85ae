"""Write the seeds of a fuzzer into a folder: python tests/fuzz/seeds.py images|tensors|requests FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import hostile
import numpy as np

from convlens.v1 import job_pb2, spec_pb2, tensor_pb2, tensors

PIXELS = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


def images() -> list[bytes]:
    """Return valid and invalid image files."""
    return list(hostile.files().values())


def tensor_messages() -> list[bytes]:
    """Return Tensors and TensorSpecs, each after a byte that says which it is."""
    arrays = [PIXELS, PIXELS.astype(np.float32), np.float16(1.5).reshape(()), np.zeros((0, 3), np.int64)]
    messages = [b"\0" + tensors.encode(array, "pixels").SerializeToString() for array in arrays]
    return messages + [b"\1" + tensors.describe(array, "saliency").SerializeToString() for array in arrays]


def requests() -> list[bytes]:
    """Return a SubmitJobRequest for each kind of visualization."""
    v, messages = spec_pb2.Visualization, []
    for visualization in (
        v(saliency=spec_pb2.Saliency(method=6, samples=2, noise=0.1)),
        v(saliency=spec_pb2.Saliency(method=9, steps=2, baselines=[spec_pb2.Baseline(blur=2)])),
        v(grad_cam=spec_pb2.GradCam(layer="block4_pool", method=3, size=1)),
        v(activations=spec_pb2.Activations(layers=["fc2"], channels=[3, 1], reduction=4)),
        v(occlusion=spec_pb2.Occlusion(patch=112, stride=56, color=spec_pb2.Color(red=1))),
        v(
            saliency=spec_pb2.Saliency(),
            output=spec_pb2.Output(height=4, width=4, normalization=2, datatype=tensor_pb2.DATA_TYPE_FP16),
        ),
    ):
        spec = spec_pb2.JobSpec(
            model="null",
            images=[spec_pb2.Image(encoded=hostile.files()["PNG"]), spec_pb2.Image(pixels=tensors.encode(PIXELS))],
            visualizations=[visualization],
            targets=[spec_pb2.Target(top_k=2)],
            scored_layer="predictions",
            predictions=3,
            priority=spec_pb2.PRIORITY_LOW,
            timeout={"seconds": 5, "nanos": 1},
        )
        request = job_pb2.SubmitJobRequest(spec=spec, request_id="12345678-1234-5678-1234-567812345678")
        messages.append(request.SerializeToString())
    return messages


def main(kind: str, folder: Path) -> None:
    """Write one file a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate({"images": images, "tensors": tensor_messages, "requests": requests}[kind]()):
        (folder / f"seed-{number:03}").write_bytes(seed)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
