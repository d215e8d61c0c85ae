"""Builders of JobSpec messages, and the model card that unit tests resolve them against."""

from __future__ import annotations

from convlens.client.options import CAM_METHODS, SALIENCY_METHODS
from convlens.v1 import model_pb2, spec_pb2
from convlens.v1.request.plan import resolve

LAYERS = {
    "c1": ("Conv2D", (32, 48, 6)),
    "p1": ("MaxPooling2D", (16, 24, 6)),
    "c2": ("Conv2D", (16, 24, 8)),
    "c3": ("Conv2D", (16, 24, 8)),
    "gap": ("GlobalAveragePooling2D", (8,)),
    "fc": ("Dense", (10,)),
}
CARD = model_pb2.Model(
    name="net",
    input_shape=(32, 48, 3),
    layers=[model_pb2.Layer(name=n, kind=kind, shape=shape) for n, (kind, shape) in LAYERS.items()],
    score_layer="fc",
    cam_layer="c3",
    methods=[*SALIENCY_METHODS, *CAM_METHODS],
)


def saliency(method=0, reduction=0, **options):
    return spec_pb2.Visualization(saliency=spec_pb2.Saliency(method=method, reduction=reduction, **options))


def grad_cam(layer="", size=0, method=0, signed=False):
    return spec_pb2.Visualization(grad_cam=spec_pb2.GradCam(layer=layer, size=size, method=method, signed=signed))


def activations(*layers, channels=(), reduction=0):
    options = spec_pb2.Activations(layers=layers, channels=channels, reduction=reduction)
    return spec_pb2.Visualization(activations=options)


def occlusion(**options):
    return spec_pb2.Visualization(occlusion=spec_pb2.Occlusion(**options))


def color(red):
    return {"color": {"red": red}}


def with_output(visualization, **output):
    visualization.output.CopyFrom(spec_pb2.Output(**output))
    return visualization


def target(**kind):
    if "indices" in kind:
        kind["indices"] = spec_pb2.UnitIndices(values=kind["indices"])
    return spec_pb2.Target(**kind)


def plan_of(*visualizations, images=2, targets=(), **fields):
    """Resolve a job spec against CARD and return the plan."""
    spec = spec_pb2.JobSpec(visualizations=visualizations, targets=targets, **fields)
    spec.images.extend(spec_pb2.Image() for _ in range(images))
    return resolve(spec, CARD)
