"""The engine's value for each method of a job: one row a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from convlens.v1.request.methods import Baseline
from convlens.worker.engine.methods import xrai
from convlens.worker.engine.methods.integrated_gradients import Blur, IntegratedGradients, StraightPath
from convlens.worker.engine.methods.occlusion import Occlusion, SlidingPatch
from convlens.worker.engine.methods.score_cam import ScoreCAM
from convlens.worker.engine.methods.smooth_grad import MOMENTS, GaussianNoise, SmoothGrad
from convlens.worker.engine.perturbation import RequestedArray
from convlens.worker.engine.plan import CAM_METHODS, SALIENCY_METHODS, Activation, GradCAM, Saliency


def _path(steps: int, baselines: tuple[Baseline, ...]) -> StraightPath:
    return StraightPath(
        steps, tuple(Blur(baseline) if isinstance(baseline, float) else baseline for baseline in baselines)
    )


METHODS: Final[dict[str, Callable[[Any], RequestedArray]]] = {
    **dict.fromkeys(SALIENCY_METHODS, lambda m: Saliency(m.method, m.reduction, m.layer)),
    **dict.fromkeys(MOMENTS, lambda m: SmoothGrad(GaussianNoise(m.samples, m.noise), m.method, m.reduction)),
    "integrated_gradients": lambda m: IntegratedGradients(_path(m.steps, m.baselines), m.reduction),
    **({"xrai": lambda m: xrai.XRAI(_path(m.steps, m.baselines))} if xrai.AVAILABLE else {}),
    **dict.fromkeys(CAM_METHODS, lambda m: GradCAM(m.layer, m.upsampled, m.method, m.signed)),
    "score_cam": lambda m: ScoreCAM(m.layer, m.upsampled),
    "occlusion": lambda m: Occlusion(SlidingPatch(m.patch, m.stride, m.color)),
    "activations": lambda m: Activation(m.layer, m.channels, m.reduction),
}
"""By the method's name on the wire, what makes the engine's value of it. Model cards list these methods."""
