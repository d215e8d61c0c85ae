"""Explain images in process, by maps of one pass and by perturbation methods alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from convlens.worker.engine.network import Network
from convlens.worker.engine.outputs import Ints, Outputs
from convlens.worker.engine.perturbation import Images, RequestedArray, plan_passes, run_methods
from convlens.worker.engine.plan import Plan


def explain(
    network: Network,
    images: Images,
    requested: Iterable[RequestedArray],
    targets: Ints | None = None,
    *,
    plan: Plan = Plan(()),  # noqa: B008 - a frozen value
    batch_size: int = 8,
    progress: Callable[[float], None] = lambda _: None,
) -> Outputs:
    """Compute the `requested` arrays of `images`.

    Args:
        network: the model.
        images: (N,H,W,C) uint8 or float32 in 0…255; RGB, or grey for a model of one channel.
        requested: any of `plan.Map` and of the classes in `methods`; all share the passes that they can.
        targets: (N,T) int32 as in `Network.run`; None: the predicted unit of each image.
        plan: the other options of the pass: number of targets, scored layer, predictions. Its maps are ignored.
        batch_size: the most images in a pass of perturbed copies. The first pass takes all `images` at once.
        progress: called with the completed share of the perturbed copies, 0…1.

    Returns:
        Outputs whose `maps` has one float32 array for each of `requested`: (N,T,…), or (N,…) for an Activation.

    Raises ValueError and OverflowError as `Network.run` does.

    >>> from convlens.worker.engine.methods.smooth_grad import SmoothGrad
    >>> from convlens.worker.engine.plan import GradCAM
    >>> cam, smooth = GradCAM("conv"), SmoothGrad()
    >>> outputs = explain(network, images, [cam, smooth])
    >>> outputs.maps[cam].shape, outputs.maps[smooth].shape, outputs.targets.shape
    ((2, 1, 32, 32), (2, 1, 32, 32), (2, 1))
    """
    maps, methods = plan_passes(requested)
    plan = replace(plan, maps=maps)
    first = network.run(images, plan, targets)
    if not methods:
        return first

    def submit(images: Images, plan: Plan, targets: Ints) -> Callable[[], Outputs]:
        outputs = network.run(images, plan, targets)
        return lambda: outputs

    return run_methods(first, images, plan, methods, network.preprocess, submit, batch_size, progress)
