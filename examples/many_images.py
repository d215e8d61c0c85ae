"""Explain very many images: bundled into jobs, several in flight, results in order, bounded memory."""

import os
from pathlib import Path

import numpy as np

from convlens.client import Client, GradCAM

photos = sorted((Path(__file__).parent / "photos").glob("*.[pj][np]g")) * 10

with Client(os.environ.get("CONVLENS_SERVER", "localhost:50051")) as client:
    for photo, result in zip(photos, client.map(photos, [GradCAM()]), strict=True):
        map_ = result["grad_cam"][0]
        row, column = np.unravel_index(map_.argmax(), map_.shape)
        print(f"{photo.name}: {result.predictions[0][0].label}, maximum at row {row}, column {column} of {map_.shape}")
