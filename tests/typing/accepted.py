"""What users write, each line accepted by mypy --strict and pyright. Never run."""

import io
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from convlens.client import (
    ALL_UNITS,
    TLS,
    Activations,
    AsyncClient,
    Blur,
    Client,
    ConvlensError,
    Explanation,
    GradCAM,
    Job,
    JobState,
    JobStatus,
    MapExplanation,
    ModelCard,
    Occlusion,
    Output,
    Prediction,
    Progress,
    Result,
    Saliency,
    ServerInfo,
    TopK,
    Visualization,
)

array: npt.NDArray[np.float32] = np.zeros((8, 8, 3), np.float32)
batch: npt.NDArray[np.uint8] = np.zeros((2, 8, 8, 3), np.uint8)
client = Client("localhost:50051", token="t", tls=TLS("ca.pem"), timeout=None, connect_timeout=3)
assert_type(client.with_token("other"), Client)

for image in ("dog.jpg", Path("dog.jpg"), b"", bytearray(), memoryview(b""), io.BytesIO(), Image.new("RGB", (2, 2))):
    client.saliency(image)
client.saliency(array, "guided", signed=True, value_range=(-1, 1))
client.saliency(batch, "integrated_gradients", baselines=["black", Blur(4), (0, 0, 255)], steps=8)
client.grad_cam(["a.jpg", b"", array], layer=["c1", "c2"], method="score_cam", target=[207, None])
client.grad_cam("dog.jpg", target="golden retriever", output=Output((20, 30), "min_max", "uint8"))
client.activations(array, "c1", range(5), reduction="mean", priority="low")
client.occlusion([Path("a.jpg"), Path("b.jpg")], patch=8, color="gray", target=np.array([1, 2]))

visualizations: list[Visualization] = [Saliency("smooth_grad", samples=9), GradCAM(), Activations(["c1"]), Occlusion()]
result = client.visualize("dog.jpg", visualizations, model="vgg16", target=TopK(3), request_id=None, fresh=True)
assert_type(result, Result)
assert_type(result.predictions, list[list[Prediction]])
assert_type(result.explained, list[dict[str, MapExplanation]])
score: float = result.explained[0]["saliency"].score
targets: list[Explanation] = list(result.explained[0]["saliency"])
maps: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = result["saliency"]
paths: list[Path] = result.save("out", opacity=0.5, sign="both", scale="shared")
assert_type(result.overlay("grad_cam", 0, 2, photo="dog.jpg", kind="masked_image", background="gray"), Image.Image)
assert_type(result.figure(name="grad_cam", target=1), Figure)
result.figure(name="grad_cam", target=1, ax=Figure().subplots(), kind="heat_map")

assert_type(client.map(["a.jpg"], [GradCAM()]), Iterator[Result])
for outcome in client.map((path for path in paths), [GradCAM()], errors="return", target=(n for n in [1, 2])):
    if not isinstance(outcome, ConvlensError | OSError):
        assert_type(outcome, Result)


def show(progress: Progress) -> None:
    print(progress.done, progress.total, progress.state)


assert_type(client.map(["a.jpg"], [GradCAM()], progress=show), Iterator[Result])
client.occlusion("dog.jpg", progress=True)
client.visualize("dog.jpg", [GradCAM()], progress=lambda progress: print(progress.fraction))

assert_type(client.models(), list[ModelCard])
assert_type(client.model("vgg16").layers[0].shape, tuple[int, ...])
assert_type(client.server_info(), ServerInfo)
seconds: float = client.server_info().limits.max_timeout

job = client.submit(array, [GradCAM()], target=ALL_UNITS, timeout=30.0)
assert_type(job, Job)
assert_type(job.status().state, JobState)
assert_type(job.wait(5).end_time, datetime | None)
assert_type(job.result(progress=show), Result)
is_done: bool = job.cancel().state.is_final
statuses: list[JobStatus] = [*client.jobs("running"), *job.watch()]


async def asynchronous() -> None:
    async with AsyncClient() as remote:
        assert_type(await remote.grad_cam("dog.jpg"), Result)
        assert_type(remote.map(photos(), [GradCAM()], target=labels()), AsyncIterator[Result])
        assert_type(await (await remote.submit(array, [GradCAM()])).status(), JobStatus)
        async for status in remote.jobs():
            assert_type(status, JobStatus)


async def photos() -> AsyncIterator[bytes]:
    yield b""


async def labels() -> AsyncIterator[str]:
    yield "cat"
