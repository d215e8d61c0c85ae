"""Everything in one call, in process: maps of one pass and of many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from convlens.worker.engine.network import Network
from convlens.worker.engine.outputs import Ints, Outputs
from convlens.worker.engine.plan import Plan
from convlens.worker.engine.sampling import Asked, Images, complete, split


def explain(
    network: Network,
    images: Images,
    asked: Iterable[Asked],
    targets: Ints | None = None,
    *,
    plan: Plan = Plan(()),  # noqa: B008 - a frozen value
    batch: int = 8,
    progress: Callable[[float], None] = lambda _: None,
) -> Outputs:
    """The maps `asked` for, of images (N,H,W,3), uint8 or float32 RGB in 0…255; targets as in Network.run.

    `plan` has the rest: targets an image, scored layer, predictions. Passes have up to `batch` images where a method
    looks at many variants of each, the first one has all of them. `progress` is told the share that is done.
    """
    maps, sampled = split(asked)
    plan = replace(plan, maps=maps)
    first = network.run(images, plan, targets)
    if not sampled:
        return first

    def submit(images: Images, plan: Plan, targets: Ints) -> Callable[[], Outputs]:
        outputs = network.run(images, plan, targets)
        return lambda: outputs

    return complete(first, images, plan, sampled, network.preprocess, submit, batch, progress)
