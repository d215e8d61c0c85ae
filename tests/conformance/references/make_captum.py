"""Make captum.npz, in an environment of captum==0.9.0, torch and numpy<2: python make_captum.py."""

from pathlib import Path

import network
import numpy as np
import torch
from captum.attr import (
    Deconvolution,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerActivation,
    LayerGradCam,
    Occlusion,
    Saliency,
)
from torch import nn

net = nn.Sequential()
weights = network.weights()
for block, (count, _) in enumerate(network.BLOCKS, start=1):
    for i in range(1, count + 1):
        kernel, bias = weights[f"block{block}_conv{i}"]
        layer = nn.Conv2d(*kernel.shape[2:], 3, padding=1)
        layer.weight.data = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        layer.bias.data = torch.from_numpy(bias)
        net.add_module(f"block{block}_conv{i}_linear", layer)
        net.add_module(f"block{block}_conv{i}", nn.ReLU())
    net.add_module(f"block{block}_pool", nn.MaxPool2d(2))
net.add_module("flatten", nn.Flatten())
for name in ("fc1", "fc2", "predictions"):
    kernel, bias = weights[name]
    if name == "fc1":  # rows from (height, width, channels) to (channels, height, width)
        kernel = kernel.reshape(2, 2, -1, kernel.shape[1]).transpose(2, 0, 1, 3).reshape(kernel.shape)
    layer = nn.Linear(*kernel.shape)
    layer.weight.data, layer.bias.data = torch.from_numpy(np.ascontiguousarray(kernel.T)), torch.from_numpy(bias)
    net.add_module(f"{name}_linear", layer)
    if name != "predictions":
        net.add_module(name, nn.ReLU())
net.eval()
x = torch.from_numpy(np.ascontiguousarray(network.images().transpose(0, 3, 1, 2)))
target = torch.from_numpy(network.TARGETS)


def attribute(explainer: object, **options: object) -> np.ndarray:
    """Return the attributions of the targets, (N,H,W,3)."""
    attribution = explainer.attribute(x.clone().requires_grad_(), target=target, **options)
    return attribution.detach().numpy().transpose(0, 2, 3, 1)


def cam(name: str) -> np.ndarray:
    """Return the Grad-CAM of a layer, (N,h,w)."""
    layer = net.get_submodule(name)
    return LayerGradCam(net, layer).attribute(x, target, relu_attributions=True).detach().numpy()[:, 0]


integrated = [
    attribute(IntegratedGradients(net), baselines=colour, n_steps=network.STEPS, method="riemann_middle")
    for colour in (0.0, 1.0)
]
outputs = LayerActivation(net, net.get_submodule(network.EARLIER)).attribute(x).detach().numpy()
window, strides = (3, network.PATCH, network.PATCH), (3, network.STRIDE, network.STRIDE)
np.savez_compressed(
    Path(__file__).with_name("captum.npz"),
    digest=network.digest(),
    logits=net(x).detach().numpy(),
    vanilla=attribute(Saliency(net), abs=False),
    guided=attribute(GuidedBackprop(net)),
    deconvnet=attribute(Deconvolution(net)),
    gradient_x_input=attribute(InputXGradient(net)),
    integrated_gradients=np.mean(integrated, 0),
    occlusion=attribute(Occlusion(net), sliding_window_shapes=window, strides=strides, baselines=0)[..., 0],
    grad_cam=cam(network.LAYER),
    grad_cam_pool=cam(network.POOL),
    grad_cam_earlier=cam(network.EARLIER),
    activations=outputs.transpose(0, 2, 3, 1),
)
