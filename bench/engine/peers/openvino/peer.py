"""OpenVINO's forward pass: the limit of direct convolution on this processor."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
import openvino as ov
import protocol
from openvino import opset13 as ops

weights = protocol.weights()
images = np.ascontiguousarray(protocol.images().transpose(0, 3, 1, 2))
x = parameter = ops.parameter(images.shape, np.float32)
for block, count in enumerate((2, 2, 3, 3, 3), start=1):
    for i in range(1, count + 1):
        kernel = np.ascontiguousarray(weights[f"block{block}_conv{i}/kernel"].transpose(3, 2, 0, 1))
        x = ops.convolution(x, ops.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])
        x = ops.relu(ops.add(x, ops.constant(weights[f"block{block}_conv{i}/bias"].reshape(1, -1, 1, 1))))
    x = ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
x = ops.reshape(ops.transpose(x, ops.constant([0, 2, 3, 1])), ops.constant([len(images), -1]), special_zero=False)
for name in ("fc1", "fc2", "predictions"):
    x = ops.add(
        ops.matmul(x, ops.constant(weights[f"{name}/kernel"]), False, False), ops.constant(weights[f"{name}/bias"])
    )
    x = ops.relu(x) if name != "predictions" else x
hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
compiled = ov.Core().compile_model(ov.Model([x], [parameter]), "CPU", hints)

protocol.serve({"OpenVINO: forward": lambda: compiled(images)[0]})
