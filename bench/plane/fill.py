"""Fill a model's queue by the submit script, as servers do, without calls: `python -m bench.plane.fill URL MODEL JOBS`.

All jobs differ, so that none waits for an equal one.
"""

from __future__ import annotations

import sys
import uuid
from typing import Final

from bench.plane.client import tiny
from convlens.jobs.queue.admission import Bounds
from convlens.jobs.queue.new_job import NewJob
from convlens.jobs.queue.producer import Producer
from convlens.jobs.queue.record import Priority
from convlens.jobs.runtime.redis_client import connect
from convlens.jobs.runtime.settings import JobsSettings
from convlens.v1 import spec_pb2

BOUNDS: Final = Bounds(
    jobs=1 << 40, image_bytes=1 << 40, result_bytes=1 << 50, known_jobs=1 << 40, pixels=1 << 50, tenant_share=1.0
)
RESULT_BYTES: Final = 224 * 224
SECONDS: Final = 3600.0


def main(url: str, model: str, jobs: int) -> None:
    """Queue the jobs, a hundred at a time."""
    producer = Producer(connect(url), JobsSettings.model_validate({"redis_url": url}), BOUNDS)
    image = tiny()
    visualizations = [spec_pb2.Visualization(saliency=spec_pb2.Saliency())]
    spec = spec_pb2.JobSpec(model=model, images=[spec_pb2.Image()], visualizations=visualizations).SerializeToString()
    names = [uuid.uuid4().hex for _ in range(jobs)]
    for first in range(0, jobs, 100):
        some = [
            NewJob(
                id=name, model=model, pool=model, tenant="", priority=Priority.NORMAL, spec=spec,
                images=[(name, image)], fingerprint=name, cost=1, pixels=1, reserved=RESULT_BYTES, timeout=SECONDS,
                keep=True,
            )
            for name in names[first : first + 100]
        ]  # fmt: skip
        producer.submit(some)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
