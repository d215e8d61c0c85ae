"""`python -m convlens.worker`, and the `worker` subcommand of `convlens`: loads models, publishes cards, works."""

from __future__ import annotations

import logging
import os
import platform
import sys

from convlens.jobs import cards, logs, memory, scheduling, scrape
from convlens.jobs.broker import celery_app, run_worker
from convlens.jobs.connect import connect
from convlens.jobs.hands import Hands
from convlens.jobs.leases import LeaseKeeper
from convlens.jobs.ledger import Ledger
from convlens.worker.batcher import Batcher
from convlens.worker.compute import Runner, Serving
from convlens.worker.images import Reader
from convlens.worker.models.catalogue import load
from convlens.worker.models.served import ModelUnavailable
from convlens.worker.models.source import parse
from convlens.worker.room import BATCHES_IN_HAND, Room
from convlens.worker.settings import WorkerSettings
from convlens.worker.watchdog import Watchdog

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Runs a worker until it is told to stop."""
    settings = WorkerSettings.from_command_line("convlens worker", sys.argv[1:] if argv is None else argv)
    logs.configure(settings.log_level)
    memory.keep()
    scheduling.batch()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's greetings are no news
    name = settings.name or f"{platform.node()}-{os.getpid()}"
    serving = load_models(settings)
    if not serving:
        log.error("none of the models can be served: %s", ", ".join(settings.model))
        return 1
    try:
        scrape.serve(settings.metrics_address)
    except OSError as error:
        log.error("metrics_address %s: %s", settings.metrics_address, error)  # noqa: TRY400 - the message says it all
        return 1
    ledger = Ledger(connect(settings.redis_url), settings)
    leases = LeaseKeeper(ledger)
    herald = cards.Herald(ledger.redis, name, [it.card for it in serving.values()], settings.lease)
    hands = Hands(ledger.redis, settings.hands)
    runner = Runner(ledger, leases, hands, serving, name, Reader(settings.max_image_pixels))
    leases.start()
    hands.start()
    watchdog = Watchdog(ledger, leases, hands, {model: it.batcher for model, it in serving.items()}, settings)
    watchdog.start()

    def ready() -> None:
        herald.start()
        memory.settle()
        print(f"ready: worker {name} models={','.join(serving)}", flush=True)

    app = celery_app(settings.redis_url)
    try:
        return run_worker(app, name, list(serving), runner, settings.hands * len(serving), ready, hands.stop)
    finally:
        herald.stop()
        hands.close()
        for it in serving.values():
            it.batcher.close()
        leases.stop()
        watchdog.stop()


def load_models(settings: WorkerSettings) -> dict[str, Serving]:
    """The models that can be had, warmed up, by name. One that cannot is logged, and the others go on."""
    serving: dict[str, Serving] = {}
    for word in settings.model:
        try:
            source = parse(word)
            model = load(source)
            model.warm_up()
        except ModelUnavailable as error:
            log.error("%s", error)  # noqa: TRY400 - the message says it all
            continue
        model.card.name = source.name
        model.card.max_batch_size = settings.max_batch_size
        serving[source.name] = Serving(
            model.card, Batcher(model, settings.max_batch_size), Room(BATCHES_IN_HAND * settings.max_batch_size)
        )
        log.info("model=%s source=%s digest=%.12s loaded", source.name, model.card.source, model.card.digest)
    return serving


if __name__ == "__main__":
    sys.exit(main())
