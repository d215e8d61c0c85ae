"""The client for ordinary programs. Safe across threads and forks: each process makes its own channel.

What is under way at a fork stays with the parent: calls of its other threads, and iterators of map() and watch(). A
child that is forked while other threads are in calls may inherit gRPC's locks as they held them, and hang: fork before
such calls begin, make the Client in the child, or have multiprocessing spawn it.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Literal, Self, overload

import grpc

from convlens.client.arrays import ValueRange
from convlens.client.calls import (
    Answer,
    Attempts,
    JobRequest,
    MapJobs,
    check_process,
    ended,
    job_limit,
    job_request,
    job_spec,
    job_state,
    moved,
    too_late,
)
from convlens.client.cancelling import CallGroup, client_closed, result_of
from convlens.client.connection import TLS, Connection
from convlens.client.errors import ConvlensError, PermissionDenied
from convlens.client.images import ImageLike, Images, Outgoing, one_by_one
from convlens.client.options import Activations, GradCAM, Occlusion, Saliency, Visualization, divided
from convlens.client.packing import Batch, ItemError, Packer, checked_map, parted
from convlens.client.results import Result
from convlens.client.stubs import Cancellable, Stubs
from convlens.client.targets import ItemTarget, MapTargets, Targets, one_an_image, paired
from convlens.client.timeouts import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, checked_timeout
from convlens.v1 import job_pb2, model_pb2, spec_pb2


@dataclass(frozen=True, slots=True)
class _Link:
    """What one process has of a connection."""

    process: int
    channel: grpc.Channel
    stubs: Stubs
    calls: CallGroup

    def is_connected(self) -> bool:
        """Whether there is a connection just now."""
        states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
        tell = states.put
        self.channel.subscribe(tell)
        try:
            return states.get(timeout=1.0) is grpc.ChannelConnectivity.READY
        except Empty:
            return False
        finally:
            self.channel.unsubscribe(tell)


class Client:
    """A connection to a Convlens server, made at the first call.

    `target` is HOST:PORT, or one of gRPC's dns:, ipv4:, ipv6:, unix: and unix-abstract: names; InvalidArgument for all
    else. `timeout` is in seconds and holds for each call, queueing and retries included; 300 unless told otherwise, and
    math.inf for no limit. A server that was not reached within `connect_timeout` seconds, 10 unless told otherwise, is
    given up: Unavailable (SERVER_UNREACHABLE) says why. Calls raise the errors of convlens.client.errors. A client is
    shared by threads; it cannot be pickled.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        token: str | None = None,
        tls: TLS | bool | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        connect_timeout: float | None = DEFAULT_CONNECT_TIMEOUT,
    ) -> None:
        self._timeout = checked_timeout(timeout, DEFAULT_TIMEOUT)
        connecting = checked_timeout(connect_timeout, DEFAULT_CONNECT_TIMEOUT, "connect_timeout")
        self._connection = Connection(target, token, tls, connecting)
        self._lock = threading.Lock()
        self._channel: _Link | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError("a Client cannot be pickled; make one in each process (results can be pickled)")

    def close(self) -> None:
        """Ends the connection and the calls under way, in whichever threads, which raise Cancelled at once.

        The server cancels the jobs that nobody waits for any more. A later call would make a new connection.
        """
        with self._lock:
            link, self._channel = self._channel, None
        if link and link.process == os.getpid():
            link.calls.cancel()
            link.channel.close()

    def _close_for_good(self) -> None:
        """As close(), where threads that are about to call are not to make a new connection."""
        self._is_over = True
        self.close()

    # --- what can be asked ---

    def models(self) -> list[model_pb2.Model]:
        """The cards of all models served: names, input shapes, layers with shapes, labels, digest."""
        return list(self._call(lambda stubs: stubs.models.ListModels, model_pb2.ListModelsRequest()).models)

    def refused_models(self) -> list[model_pb2.RefusedModel]:
        """The models that live workers were told to serve and cannot: name, source, reason, worker."""
        return list(self._call(lambda stubs: stubs.models.ListModels, model_pb2.ListModelsRequest()).refused)

    def model(self, name: str) -> model_pb2.Model:
        """One model's card. NotFound names the models there are."""
        return self._call(lambda stubs: stubs.models.GetModel, model_pb2.GetModelRequest(name=name)).model

    def server_info(self) -> model_pb2.GetServerInfoResponse:
        """The server's version, limits and features."""
        return self._call(lambda stubs: stubs.models.GetServerInfo, model_pb2.GetServerInfoRequest())

    # --- maps ---

    def saliency(self, images: Images, method: str = "vanilla", **options: Any) -> Result:
        """See Saliency for its options; further ones as in visualize."""
        own, rest = divided(Saliency, options)
        return self.visualize(images, [Saliency(method, **own)], **rest)

    def grad_cam(self, images: Images, layer: str | Sequence[str] | None = None, **options: Any) -> Result:
        """See GradCAM for its options; several layers make several maps. Further options as in visualize."""
        own, rest = divided(GradCAM, options)
        layers = [layer] if layer is None or isinstance(layer, str) else layer
        return self.visualize(images, [GradCAM(it, **own) for it in layers], **rest)

    def activations(
        self, images: Images, layers: Sequence[str] | str, channels: Sequence[int] | None = None, **options: Any
    ) -> Result:
        """See Activations for its options; further ones as in visualize."""
        own, rest = divided(Activations, options)
        return self.visualize(images, [Activations(layers, channels, **own)], **rest)

    def occlusion(self, images: Images, **options: Any) -> Result:
        """See Occlusion for its options; further ones as in visualize."""
        own, rest = divided(Occlusion, options)
        return self.visualize(images, [Occlusion(**own)], **rest)

    def visualize(
        self,
        images: Images,
        visualizations: Iterable[Visualization],
        *,
        model: str = "",
        target: Targets = None,
        scored_layer: str = "",
        predictions: int | None = None,
        request_id: str | None = None,
        priority: str = "normal",
        fresh: bool = False,
        timeout: float | None = None,
        value_range: ValueRange | None = None,
    ) -> Result:
        """Computes the visualizations on every image and returns the arrays, verified.

        `model` is by default the first by name of those served; `target` the predicted class of each image, else an
        index, a label, TopK or ALL_UNITS for all of them, or a list or array with one an image, where an inner list has
        several units.
        `scored_layer` is by default the logits; `predictions` says how many best classes to report. `request_id` (a
        UUID) makes repeated calls one job. An equal request that was answered lately, or is under way, answers this one
        too (`result.cached`), unless it is to be `fresh`. A server that has gone away, or is overloaded, is tried again
        until `timeout` seconds are over, by default the client's; math.inf: as long as the server lets a job take.
        `value_range` says what is black and what white in arrays of floats: (0, 255), (0, 1) or (-1, 1).
        """
        seconds = checked_timeout(timeout, self._timeout)
        request = job_request(
            images, visualizations, model=model, target=target, scored_layer=scored_layer, predictions=predictions,
            request_id=request_id, priority=priority, fresh=fresh, timeout=self._job_limit(seconds),
            value_range=value_range,
        )  # fmt: skip
        return self._answer(request, seconds)

    @overload
    def map(
        self, images: Iterable[ImageLike], visualizations: Iterable[Visualization], *, errors: Literal["raise"] = ...,
        in_flight: int = ..., model: str = ..., target: MapTargets = ..., scored_layer: str = ...,
        predictions: int | None = ..., priority: str = ..., fresh: bool = ..., timeout: float | None = ...,
        value_range: ValueRange | None = ...,
    ) -> Iterator[Result]: ...  # fmt: skip
    @overload
    def map(
        self, images: Iterable[ImageLike], visualizations: Iterable[Visualization], *, errors: Literal["return"],
        in_flight: int = ..., model: str = ..., target: MapTargets = ..., scored_layer: str = ...,
        predictions: int | None = ..., priority: str = ..., fresh: bool = ..., timeout: float | None = ...,
        value_range: ValueRange | None = ...,
    ) -> Iterator[Result | ItemError]: ...  # fmt: skip
    def map(
        self,
        images: Iterable[ImageLike],
        visualizations: Iterable[Visualization],
        *,
        errors: Literal["raise", "return"] = "raise",
        in_flight: int = 4,
        model: str = "",
        target: MapTargets = None,
        scored_layer: str = "",
        predictions: int | None = None,
        priority: str = "normal",
        fresh: bool = False,
        timeout: float | None = None,
        value_range: ValueRange | None = None,
    ) -> Iterator[Result] | Iterator[Result | ItemError]:
        """A result for each image, in order, of very many: packed 8 to 64 a job, as many as take a moment,
        `in_flight` jobs at once.

        Memory holds no more than those, however many come. `target` is one for all images, or any iterable beside the
        images, such as a list, an array or a generator, with one an image (an inner list has several units); where one
        of the two ends before the other, InvalidArgument. `errors` says what becomes of an image that has no result,
        also for its target's sake: raise ends the iteration when its turn comes, return gives the error in the result's
        place; its neighbours have theirs all the same. To leave the iteration, by break, by an error or by closing the
        client, ends the jobs under way. The other options are those of visualize, `timeout` that of each job.
        """
        checked_map(errors, in_flight)
        spec = job_spec(
            visualizations, model=model, scored_layer=scored_layer, predictions=predictions, priority=priority,
            fresh=fresh,
        )  # fmt: skip
        seconds = checked_timeout(timeout, self._timeout)
        pairs = paired(one_by_one(images, value_range), one_an_image(target, images))
        return self._map(pairs, MapJobs(spec, target, seconds), Packer(value_range), errors, in_flight)

    def _map(
        self,
        pairs: Iterator[tuple[ImageLike, ItemTarget]],
        jobs: MapJobs,
        packer: Packer,
        errors: str,
        in_flight: int,
    ) -> Iterator[Any]:
        batches = _batches(packer, pairs)
        waiting: deque[Future[list[Result | ItemError]]] = deque()
        process = os.getpid()
        with CallGroup(self._link().calls) as calls:
            while True:
                while len(waiting) < in_flight and (batch := next(batches, None)):
                    waiting.append(_in_thread(partial(self._batch, packer, batch, jobs, calls)))
                if not waiting:
                    return
                for item in result_of(waiting.popleft()):
                    if errors == "raise" and isinstance(item, Exception):
                        raise item
                    yield item
                    check_process(process, "map")  # a fork has none of the threads that make the calls

    def _batch(self, packer: Packer, batch: Batch, jobs: MapJobs, calls: CallGroup) -> list[Result | ItemError]:
        """What became of each image of a job of map()."""
        if not batch.images:
            return batch.in_place([])
        began = time.monotonic()
        found = self._each(batch.images, batch.targets, jobs, calls)
        packer.took(len(batch), time.monotonic() - began)
        return batch.in_place(found)

    def _each(
        self, images: Outgoing, targets: list[spec_pb2.Target], jobs: MapJobs, calls: CallGroup
    ) -> list[Result | ItemError]:
        try:
            request = jobs.request(images, targets, self._job_limit(jobs.seconds))
            return list(self._answer(request, jobs.seconds, calls=calls).split())
        except ConvlensError as error:
            calls.check()
            parts = parted(images, targets, error)
            if not parts:
                return [error] * len(images)
        return [item for part in parts for item in self._each(*part, jobs, calls)]

    # --- jobs ---

    def submit(
        self,
        images: Images,
        visualizations: Iterable[Visualization],
        *,
        model: str = "",
        target: Targets = None,
        scored_layer: str = "",
        predictions: int | None = None,
        request_id: str | None = None,
        priority: str = "normal",
        fresh: bool = False,
        timeout: float | None = None,
        value_range: ValueRange | None = None,
    ) -> Job:
        """Queues a job and returns at once; it is computed whoever is connected.

        `timeout` is what it may take in seconds, from now to its end; by default the server's default, and for math.inf
        the server's maximum. The other options are those of visualize.
        """
        seconds = None if timeout is None else checked_timeout(timeout, math.inf)
        request = job_request(
            images, visualizations, model=model, target=target, scored_layer=scored_layer, predictions=predictions,
            request_id=request_id, priority=priority, fresh=fresh,
            timeout=self._job_limit(seconds) if seconds == math.inf else seconds, value_range=value_range,
        )  # fmt: skip
        submit = request.serialized
        response = self._call(lambda stubs: stubs.jobs.SubmitJob, submit, request_id=request.request_id)
        return Job(self, response.job.id, request)

    def job(self, job_id: str) -> Job:
        """A job by its id, from whichever process it was submitted."""
        return Job(self, job_id)

    def jobs(self, state: str | None = None) -> Iterator[job_pb2.Job]:
        """All jobs, newest first; only those in `state` (queued, running, succeeded…) when given."""
        wanted = job_state(state)
        token = ""
        while True:
            request = job_pb2.ListJobsRequest(page_token=token, state=wanted)
            page = self._call(lambda stubs: stubs.jobs.ListJobs, request)
            yield from page.jobs
            token = page.next_page_token
            if not token:
                return

    # --- calls ---

    def _link(self) -> _Link:
        """This process's link; a channel inherited by a fork is left alone, since using it would hang."""
        with self._lock:
            if self._is_over:
                raise client_closed()
            if self._channel is None or self._channel.process != os.getpid():
                channel = self._connection.channel(grpc)
                self._channel = _Link(os.getpid(), channel, Stubs(Cancellable(channel)), CallGroup())
            return self._channel

    def _stubs(self) -> Stubs:
        return self._link().stubs

    def _call(
        self,
        method: Callable[[Stubs], Any],
        request: Any,
        timeout: float | None = None,
        request_id: str = "",
    ) -> Any:
        """A unary call, tried again where that may help."""
        attempts = Attempts(self._connection, self._timeout if timeout is None else timeout, request_id)
        link = self._link()
        while True:
            options = {"timeout": attempts.remaining(), "metadata": self._connection.metadata_of(request)}
            try:
                with link.calls.running(partial(method(link.stubs), request, **options)) as call:
                    (response,) = call
                    self._connection.heard(call.trailing_metadata())
                    return response
            except grpc.RpcError as error:
                link.calls.pause(attempts.delay_after(error, link.is_connected))

    def _answer(
        self, request: JobRequest | None, timeout: float, job_id: str = "", calls: CallGroup | None = None
    ) -> Result:
        """The answer to a request, or of a job that has ended; resumed where it broke. One of `calls`."""
        link = self._link()
        calls = calls or link.calls
        answer = Answer(self._connection, request, timeout, job_id)
        while True:
            method, message, seconds = answer.next_call(link.stubs)
            options = {"timeout": seconds, "metadata": self._connection.metadata_of(message)}
            try:
                with calls.running(partial(method, message, **options)) as call:
                    for part in call:
                        answer.take(part)
                    self._connection.heard(call.trailing_metadata())
            except grpc.RpcError as error:
                calls.pause(answer.delay_after(error, link.is_connected))
            else:
                return answer.result()

    def _job_limit(self, seconds: float) -> float | None:
        """What a job is told to take at most, whose caller has so many seconds; None for the server's default."""
        connection = self._connection
        if seconds > DEFAULT_TIMEOUT and connection.longest_job is None:
            try:
                connection.longest_job = self.server_info().limits.max_timeout.ToNanoseconds() / 1e9
            except PermissionDenied:
                connection.longest_job = 0.0  # a token that may not read leaves it at the server's default
        return job_limit(seconds, connection.longest_job or 0.0)


class Job:
    """A job on the server."""

    def __init__(self, client: Client, job_id: str, request: JobRequest | None = None) -> None:
        self._client = client
        self._request = request
        self.id = job_id
        self.request_id = request.request_id if request else ""

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def status(self) -> job_pb2.Job:
        """The job as it stands now: state, times, attempts, place in the queue, error."""
        return self._client._call(lambda stubs: stubs.jobs.GetJob, job_pb2.GetJobRequest(id=self.id)).job

    def watch(self, timeout: float | None = None) -> Iterator[job_pb2.Job]:
        """The job now and at every change until it has ended; DeadlineExceeded after `timeout` seconds.

        `timeout` is by default the client's, math.inf for no limit, and 0 for the job now and nothing more. A server
        that goes away meanwhile is called again until then.
        """
        seconds = checked_timeout(timeout, self._client._timeout, or_zero=True)
        return self._watch(seconds) if seconds else self._once()

    def _once(self) -> Iterator[job_pb2.Job]:
        job = self.status()
        yield job
        if not ended(job):
            raise too_late(self.id, 0)

    def _watch(self, timeout: float) -> Iterator[job_pb2.Job]:
        connection, link = self._client._connection, self._client._link()
        attempts = Attempts(connection, timeout, self.request_id)
        seen: job_pb2.Job | None = None
        process = os.getpid()
        while seen is None or not ended(seen):
            request = job_pb2.WatchJobRequest(id=self.id)
            options = {"timeout": attempts.remaining(), "metadata": connection.metadata}
            try:
                with link.calls.running(partial(link.stubs.jobs.WatchJob, request, **options)) as call:
                    for change in call:
                        connection.answered()
                        if seen is None or moved(seen, change.job):
                            seen = change.job
                            yield seen
                            check_process(process, "watch")
            except grpc.RpcError as error:
                is_late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                if is_late and (connection.reached or link.is_connected()):
                    raise too_late(self.id, timeout) from error
                link.calls.pause(attempts.delay_after(error, link.is_connected))

    def wait(self, timeout: float | None = None) -> job_pb2.Job:
        """The job once it has ended, whichever way; `timeout` as in watch, 0 for one that has ended by now."""
        *_, last = self.watch(timeout)
        return last

    def result(self, timeout: float | None = None) -> Result:
        """Waits for the job, `timeout` as in wait, and returns its result; raises what it ended with without one."""
        seconds = checked_timeout(timeout, self._client._timeout, or_zero=True)
        self.wait(seconds)
        return self._client._answer(self._request, seconds or self._client._timeout, self.id)

    def cancel(self) -> job_pb2.Job:
        """Ends the job; one that has ended already is returned as it is."""
        return self._client._call(lambda stubs: stubs.jobs.CancelJob, job_pb2.CancelJobRequest(id=self.id)).job

    def delete(self) -> None:
        """Forgets a job that has ended, and its result."""
        self._client._call(lambda stubs: stubs.jobs.DeleteJob, job_pb2.DeleteJobRequest(id=self.id))


def _batches(packer: Packer, pairs: Iterator[tuple[ImageLike, ItemTarget]]) -> Iterator[Batch]:
    for image, target in pairs:
        if batch := packer.add(image, target):
            yield batch
    if batch := packer.rest():
        yield batch


def _in_thread(work: Callable[[], list[Result | ItemError]]) -> Future[list[Result | ItemError]]:
    """Begins `work` in a thread of its own, which a program that ends does not wait for."""
    future: Future[list[Result | ItemError]] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised by whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, name="convlens-map", daemon=True).start()
    return future
