"""The pipeline of a worker: consumer (claims jobs, decodes images) → batcher (the device) → committer (ends jobs)."""

from __future__ import annotations

from collections.abc import Sequence

from convlens.jobs.queue.celery_events import JobEvents
from convlens.jobs.queue.consumer import JobConsumer
from convlens.jobs.queue.lease_renewer import LeaseRenewer
from convlens.jobs.runtime.background import call_together
from convlens.worker.images import ImageDecoder
from convlens.worker.pipeline.claiming import Claimer
from convlens.worker.pipeline.committer import Committer
from convlens.worker.pipeline.consumer import ConsumerPool
from convlens.worker.pipeline.decoder import Decoder
from convlens.worker.pipeline.decoder_processes import DecoderProcesses
from convlens.worker.pipeline.in_flight import LoadedModel
from convlens.worker.pipeline.limits import Budget
from convlens.worker.pipeline.outcome import Outcomes
from convlens.worker.pipeline.watchdog import Watchdog
from convlens.worker.settings import WorkerSettings


class Pipeline:
    """The stages of a worker, each with its own threads and a bounded queue before it, and what watches them."""

    def __init__(
        self, queue: JobConsumer, events: JobEvents, name: str, models: Sequence[LoadedModel], settings: WorkerSettings
    ) -> None:
        self.leases = LeaseRenewer(queue)
        self._events = events
        outcomes = Outcomes(queue, self.leases, self._events)
        threads = settings.consumers
        self._committer = Committer(queue, outcomes, name, threads=threads)
        self._batchers = {model.pool: model.batcher for model in models}
        self._processes = DecoderProcesses(settings.decoders, settings.max_image_pixels)
        decoder = Decoder(queue, outcomes, ImageDecoder(settings.max_image_pixels), self._processes)
        claimer = Claimer(queue, self.leases, self._events, name)
        working = Budget(settings.working_bytes)
        self.consumers = ConsumerPool(queue, claimer, decoder, self._committer, outcomes, models, threads, working)
        self._watchdog = Watchdog(queue, self.leases, self.consumers, self._batchers, settings)

    def start(self) -> None:
        """Start all threads but those of the consumers, which are Celery's."""
        self.leases.start()
        self._events.start()
        self._committer.start()
        self.consumers.start()
        self._watchdog.start()

    def close(self) -> None:
        """End the jobs under way, stage by stage, then the threads. The consumers have returned."""
        call_together(*(batcher.close for batcher in self._batchers.values()))
        self._committer.close()
        call_together(
            self.consumers.close, self._events.stop, self.leases.stop, self._watchdog.stop, self._processes.close
        )
