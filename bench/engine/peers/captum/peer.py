"""Captum, on PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
import protocol
import torch
from captum.attr import GuidedBackprop, LayerActivation, LayerGradCam, Saliency
from torch import nn

weights = protocol.weights()
net = nn.Sequential()
for block, (count, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1):
    for i in range(1, count + 1):
        kernel = torch.from_numpy(np.ascontiguousarray(weights[f"block{block}_conv{i}/kernel"].transpose(3, 2, 0, 1)))
        convolution = nn.Conv2d(kernel.shape[1], width, 3, padding=1)
        convolution.weight.data, convolution.bias.data = kernel, torch.from_numpy(weights[f"block{block}_conv{i}/bias"])
        net.add_module(f"block{block}_conv{i}", convolution)
        net.add_module(f"block{block}_relu{i}", nn.ReLU())
    net.add_module(f"block{block}_pool", nn.MaxPool2d(2))
net.add_module("flatten", nn.Flatten())
for name in ("fc1", "fc2", "predictions"):
    kernel = weights[f"{name}/kernel"]
    if name == "fc1":
        kernel = kernel.reshape(7, 7, 512, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
    dense = nn.Linear(*kernel.shape)
    dense.weight.data = torch.from_numpy(np.ascontiguousarray(kernel.T))
    dense.bias.data = torch.from_numpy(weights[f"{name}/bias"])
    net.add_module(name, dense)
    if name != "predictions":
        net.add_module(f"{name}_relu", nn.ReLU())
net.eval()
x = torch.from_numpy(np.ascontiguousarray(protocol.images().transpose(0, 3, 1, 2)))
with torch.no_grad():
    targets = net(x).argmax(1)
plain, guided = Saliency(net), GuidedBackprop(net)
cam = LayerGradCam(net, net.get_submodule("block5_relu3"))
layer = LayerActivation(net, net.get_submodule("block4_relu2"))


def forward():
    """Return the logits."""
    with torch.no_grad():
        return net(x).numpy()


def saliency():
    """Return the largest absolute value of the channels."""
    return plain.attribute(x.clone().requires_grad_(), targets).amax(1).detach().numpy()


protocol.serve(
    {
        "PyTorch: forward": forward,
        "Captum: saliency": saliency,
        "Captum: the article's four": lambda: [
            saliency(), guided.attribute(x.clone().requires_grad_(), targets).detach().numpy(),
            cam.attribute(x, targets, relu_attributions=True).detach().numpy(),
            layer.attribute(x)[:, :5].detach().numpy(),
        ][0],
    }
)  # fmt: skip
