"""What a job asks for, as the engine's values: one row a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from convlens.jobs.request.methods import Baseline, Method
from convlens.worker.engine.methods import xrai
from convlens.worker.engine.methods.integrated_gradients import Blur, IntegratedGradients, Path
from convlens.worker.engine.methods.occlusion import Covered, Occlusion
from convlens.worker.engine.methods.score_cam import ScoreCAM
from convlens.worker.engine.methods.smooth_grad import MOMENTS, Noisy, SmoothGrad
from convlens.worker.engine.plan import CAM_METHODS, SALIENCY_METHODS, Activation, GradCAM, Saliency
from convlens.worker.engine.sampling import Asked


def _path(steps: int, baselines: tuple[Baseline, ...]) -> Path:
    return Path(steps, tuple(Blur(it) if isinstance(it, float) else it for it in baselines))


METHODS: Final[dict[str, Callable[[Any], Asked]]] = {
    **dict.fromkeys(SALIENCY_METHODS, lambda it: Saliency(it.method, it.reduction, it.layer)),
    **dict.fromkeys(MOMENTS, lambda it: SmoothGrad(Noisy(it.samples, it.noise), it.method, it.reduction)),
    "integrated_gradients": lambda it: IntegratedGradients(_path(it.steps, it.baselines), it.reduction),
    **({"xrai": lambda it: xrai.XRAI(_path(it.steps, it.baselines))} if xrai.AVAILABLE else {}),
    **dict.fromkeys(CAM_METHODS, lambda it: GradCAM(it.layer, it.upsampled, it.method, it.signed)),
    "score_cam": lambda it: ScoreCAM(it.layer, it.upsampled),
    "occlusion": lambda it: Occlusion(Covered(it.patch, it.stride, it.color)),
    "activations": lambda it: Activation(it.layer, it.channels, it.reduction),
}
"""By the method's name on the wire; those that this worker can compute, and says so on its models' cards."""


def engine_value(method: Method) -> Asked:
    """What the engine calls the array that a job asks for."""
    return METHODS[method.method](method)
