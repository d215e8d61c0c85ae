"""The whole queue in one object: producer, consumer and reconciler."""

from __future__ import annotations

from convlens.jobs.queue.client import QueueClient
from convlens.jobs.queue.consumer import JobConsumer
from convlens.jobs.queue.producer import Producer
from convlens.jobs.queue.reconciler import Reconciler


class Queue(Producer, JobConsumer, Reconciler):
    """The producer, the consumer and the reconciler of one Redis, with the same bounds."""

    def __init__(self, client, settings, bounds):
        QueueClient.__init__(self, client, settings)
        self.bounds = bounds
