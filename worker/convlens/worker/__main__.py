"""`python -m convlens.worker`, and the `worker` subcommand of `convlens`: loads models, publishes cards, works."""

from __future__ import annotations

import logging
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from convlens.jobs import model_registry
from convlens.jobs.deployment import CHECKS, Deployment
from convlens.jobs.payloads.own_folder import UnusableFolder
from convlens.jobs.pools import pool_of
from convlens.jobs.queue.celery import run_worker, worker_app
from convlens.jobs.queue.celery_events import JobEvents
from convlens.jobs.queue.consumer import JobConsumer
from convlens.jobs.runtime import checks, logs, metrics_endpoint, process
from convlens.jobs.runtime.command_line import SettingsCommand
from convlens.jobs.runtime.redis_client import connect
from convlens.jobs.runtime.temporary import temporary_files
from convlens.v1 import model_pb2
from convlens.v1.image_formats import ignore_warnings
from convlens.worker.models.loaders import load
from convlens.worker.models.model_protocol import ModelUnavailable
from convlens.worker.models.source import Source, parse
from convlens.worker.pipeline.batcher import Batcher
from convlens.worker.pipeline.in_flight import LoadedModel
from convlens.worker.pipeline.limits import BATCHES_IN_FLIGHT, InFlightLimit
from convlens.worker.pipeline.pipeline import Pipeline
from convlens.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

VERSION: Final = metadata.version("convlens-worker")


SUMMARY: Final = """Run a worker: it holds models, claims jobs from Redis, and computes their maps.

A model is NAME=SOURCE\\[,option=value…]. SOURCE is shapes (bundled), imagenet (the stock VGG16), a .keras, .h5 or .hdf5
file, a SavedModel folder, a .weights.h5 file of the stock VGG16, random:SEED, or null. Options: preprocess=caffe, tf,
torch, unit or none, or mean=R:G:B and std=R:G:B; size=HxW, output=LAYER, labels=FILE, precision=float32, bfloat16, tf32
or float16; for null device_ms=A+B. A path with commas is in double quotes.

Prints `ready: worker NAME models=…` once it works. SIGTERM drains it.

Examples:

  convlens worker --model vgg16=imagenet --redis-url redis://queue:6379/0

  convlens worker --model scan=scan.keras,preprocess=unit,labels=scan.txt
"""


def run(settings: WorkerSettings) -> int:
    """Run a worker until it is stopped; return the exit status."""
    logs.configure(settings.log_level)
    ignore_warnings()
    process.prepare()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides TensorFlow's start-up messages
    with temporary_files("worker"):
        return _run(settings)


main: Final = SettingsCommand("convlens worker", WorkerSettings, run, SUMMARY)


def _run(settings: WorkerSettings) -> int:
    """Serves the models there are; the exit status."""
    try:
        queue = JobConsumer(connect(settings.redis_url), settings)
    except UnusableFolder as error:
        log.error("%s", error)  # noqa: TRY400 - the message says it all
        return 1
    name = settings.name or f"{platform.node()}-{os.getpid()}"
    models, refused = load_models(settings)
    if not models:
        log.error("none of the models can be served: %s", "; ".join(model.reason for model in refused))
        return 1
    try:
        metrics_endpoint.serve(settings.metrics_address)
    except OSError as error:
        log.error("metrics_address %s: %s", settings.metrics_address, error)  # noqa: TRY400 - the message says it all
        return 1
    cards = {model.pool: model.card for model in models}
    heartbeat = model_registry.RegistrationHeartbeat(queue.redis, name, cards.values(), settings.lease, refused)
    app = worker_app(settings.redis_url, remote_control=settings.celery_control)
    events = JobEvents(app, name, is_on=settings.celery_control)
    pipeline = Pipeline(queue, events, name, models, settings)
    pipeline.start()
    checks.log_problems(CHECKS, Deployment(settings))

    def ready() -> None:
        heartbeat.start()
        process.freeze_objects()
        print(f"ready: worker {name} models={','.join(model.card.name for model in models)}", flush=True)

    def stop() -> None:
        heartbeat.withdraw()
        pipeline.consumers.stop()

    try:
        threads = settings.consumers * len(models)
        return run_worker(app, name, cards, pipeline.leases, pipeline.consumers, threads, ready, stop)
    finally:
        heartbeat.stop()
        pipeline.close()


def load_models(settings: WorkerSettings) -> tuple[list[LoadedModel], list[model_pb2.RefusedModel]]:
    """The models that can be had, warmed up, and those that cannot, whatever is wrong with them."""
    models: dict[str, LoadedModel] = {}
    refused = []
    for word in settings.model:
        source = None
        try:
            source = parse(word)
            if source.name in models:
                raise ModelUnavailable(f"--model {word!r}: another --model has that name")  # noqa: TRY301 - as load() does
            model = load(source)
            model.warm_up()
        except ModelUnavailable as error:
            log.error("%s", error)  # noqa: TRY400 - the message says it all
            refused.append(_refused(word, source, str(error)))
            continue
        except Exception as error:
            log.exception("--model %r cannot be served", word)
            reason = f"--model {word!r}: an unforeseen {type(error).__name__}: {error}"
            refused.append(_refused(word, source, reason))
            continue
        model.card.name = source.name
        model.card.max_batch_size = settings.max_batch_size
        model.card.worker_version = VERSION
        limit = InFlightLimit(BATCHES_IN_FLIGHT * settings.max_batch_size)
        slowest = (1 + settings.max_batch_size) * settings.device_timeout  # a batch that fails, then each job alone
        batcher = Batcher(model, settings.max_batch_size, slowest)
        loaded = LoadedModel(pool_of(model.card), model.card, batcher, limit)
        models[source.name] = loaded
        log.info("model=%s source=%s pool=%s loaded", source.name, model.card.source, loaded.pool)
    return list(models.values()), refused


def _refused(word: str, source: Source | None, reason: str) -> model_pb2.RefusedModel:
    """What is published of a --model that is not served, and of which `source` is None where it cannot even be read."""
    name, _, origin = word.partition("=")
    if source:
        path = source.kind == "file"
        origin = Path(source.argument).name if path else f"{source.kind}:{source.argument}".rstrip(":")
    name, origin, reason = (text.encode(errors="replace").decode() for text in (name[:64], origin[:256], reason))
    return model_pb2.RefusedModel(name=name, source=origin, reason=reason)


if __name__ == "__main__":
    sys.exit(main())
