"""The client for ordinary programs. Safe across threads and forks: each process makes its own channel."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Literal, Self, overload

import grpc

from convlens.client.arrays import ValueRange
from convlens.client.calls import (
    Answer,
    Attempts,
    JobRequest,
    ended,
    job_request,
    job_state,
    moved,
    too_late,
)
from convlens.client.connection import DEFAULT_TIMEOUT, TLS, Connection
from convlens.client.errors import ConvlensError
from convlens.client.images import ImageLike, Images, Outgoing, one_by_one
from convlens.client.options import Activations, GradCAM, Occlusion, Saliency, Targets, Visualization, divided
from convlens.client.packing import Batch, ItemError, Packer, parted
from convlens.client.results import Result
from convlens.client.stubs import Stubs
from convlens.v1 import job_pb2, model_pb2


class Client:
    """A connection to a Convlens server, made at the first call.

    `timeout` is in seconds and holds for each call, queueing and retries included; 300 unless told otherwise. Calls
    raise the errors of convlens.client.errors. A client is shared by threads; it cannot be pickled. On the server's own
    machine images and results go through memory that both share, where the server may have it (Linux, the same user).
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        token: str | None = None,
        tls: TLS | bool | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self._connection = Connection(target, token, tls)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._channel: tuple[int, Any, Stubs] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError("a Client cannot be pickled; make one in each process (results can be pickled)")

    def close(self) -> None:
        """Ends the connection; a later call would make a new one."""
        with self._lock:
            found, self._channel = self._channel, None
        if found and found[0] == os.getpid():
            found[1].close()
        self._connection.memory.close()

    # --- what can be asked ---

    def models(self) -> list[model_pb2.Model]:
        """The cards of all models served: names, input shapes, layers with shapes, labels, digest."""
        return list(self._call(lambda stubs: stubs.models.ListModels, model_pb2.ListModelsRequest()).models)

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
        visualizations: Sequence[Visualization],
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

        `model` is by default the server's; `target` the predicted class of each image; `scored_layer` the logits;
        `predictions` how many best classes to report. `request_id` (a UUID) makes repeated calls one job. An equal
        request that was answered lately, or is under way, answers this one too (`result.cached`), unless it is to be
        `fresh`. Unreachable and overloaded servers are tried again until `timeout` seconds are over. `value_range` says
        what is black and what white in arrays of floats: (0, 255), (0, 1) or (-1, 1); docs/images.md has all of that.
        """
        timeout = self._timeout if timeout is None else timeout
        request = job_request(
            images, visualizations, model=model, target=target, scored_layer=scored_layer, predictions=predictions,
            request_id=request_id, priority=priority, fresh=fresh, timeout=None, value_range=value_range,
        )  # fmt: skip
        return self._answer(request, timeout)

    @overload
    def map(
        self, images: Iterable[ImageLike], visualizations: Sequence[Visualization], *, errors: Literal["raise"] = ...,
        in_flight: int = ..., **options: Any,
    ) -> Iterator[Result]: ...  # fmt: skip
    @overload
    def map(
        self, images: Iterable[ImageLike], visualizations: Sequence[Visualization], *, errors: Literal["return"],
        in_flight: int = ..., **options: Any,
    ) -> Iterator[Result | ItemError]: ...  # fmt: skip
    def map(
        self,
        images: Iterable[ImageLike],
        visualizations: Sequence[Visualization],
        *,
        errors: Literal["raise", "return"] = "raise",
        in_flight: int = 4,
        **options: Any,
    ) -> Iterator[Result] | Iterator[Result | ItemError]:
        """A result for each image, in order, of very many: packed 8 to 64 a job, as many as take a moment,
        `in_flight` jobs at once.

        Memory holds no more than those, however many come. `errors` says what becomes of an image that has no result:
        raise ends the iteration when its turn comes, return gives the error in the result's place; its neighbours have
        theirs all the same. Further options as in visualize, but for a list of targets and a request id.
        """
        value_range: ValueRange | None = options.pop("value_range", None)
        packer = Packer(value_range)
        batches = _batches(packer, one_by_one(images, value_range))
        waiting: deque[Future[list[Result | ItemError]]] = deque()
        with ThreadPoolExecutor(in_flight, thread_name_prefix="convlens-map") as pool:
            try:
                while True:
                    while len(waiting) < in_flight and (batch := next(batches, None)):
                        waiting.append(pool.submit(self._batch, packer, batch, visualizations, options))
                    if not waiting:
                        return
                    for item in waiting.popleft().result():
                        if errors == "raise" and isinstance(item, Exception):
                            raise item
                        yield item
            finally:
                for future in waiting:
                    future.cancel()

    def _batch(
        self,
        packer: Packer,
        batch: Batch,
        visualizations: Sequence[Visualization],
        options: dict[str, Any],
    ) -> list[Result | ItemError]:
        """What became of each image of a job of map()."""
        if not batch.images:
            return batch.in_place([])
        began = time.monotonic()
        found = self._each(batch.images, visualizations, options)
        packer.took(len(batch), time.monotonic() - began)
        return batch.in_place(found)

    def _each(
        self, images: Outgoing, visualizations: Sequence[Visualization], options: dict[str, Any]
    ) -> list[Result | ItemError]:
        try:
            return list(self.visualize(images, visualizations, **options).split())
        except ConvlensError as error:
            parts = parted(images, error)
            if not parts:
                return [error] * len(images)
        return [item for part in parts for item in self._each(part, visualizations, options)]

    # --- jobs ---

    def submit(
        self,
        images: Images,
        visualizations: Sequence[Visualization],
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
        """Queues a job and returns at once; it is computed whoever is connected, within `timeout` seconds."""
        request = job_request(
            images, visualizations, model=model, target=target, scored_layer=scored_layer, predictions=predictions,
            request_id=request_id, priority=priority, fresh=fresh, timeout=timeout, value_range=value_range,
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

    def _stubs(self) -> Stubs:
        """This process's stubs; a channel inherited by a fork is left alone, since using it would hang."""
        with self._lock:
            if self._channel is None or self._channel[0] != os.getpid():
                channel = self._connection.channel(grpc)
                self._channel = (os.getpid(), channel, Stubs(channel))
            return self._channel[2]

    def _call(
        self,
        method: Callable[[Stubs], Any],
        request: Any,
        timeout: float | None = None,
        request_id: str = "",
    ) -> Any:
        """A unary call, tried again where that may help."""
        attempts = Attempts(self._connection, self._timeout if timeout is None else timeout, request_id)
        while True:
            try:
                response, call = method(self._stubs()).with_call(
                    request, timeout=attempts.remaining(), metadata=self._connection.metadata
                )
            except grpc.RpcError as error:
                time.sleep(attempts.delay_after(error))
            else:
                self._connection.heard(call.trailing_metadata())
                return response

    def _answer(self, request: JobRequest | None, timeout: float, job_id: str = "") -> Result:
        """The answer to a request, or of a job that has ended; resumed where it broke."""
        with Answer(self._connection, request, timeout, job_id) as answer:
            while True:
                method, message, seconds = answer.next_call(self._stubs())
                options = {"timeout": seconds, "metadata": self._connection.metadata}
                try:
                    if answer.unary:
                        part, call = method.with_call(message, **options)
                        answer.take(part)
                    else:
                        call = method(message, **options)
                        for part in call:
                            answer.take(part)
                    self._connection.heard(call.trailing_metadata())
                except grpc.RpcError as error:
                    time.sleep(answer.delay_after(error))
                else:
                    return answer.result()


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

        `timeout` is by default the client's. A server that goes away meanwhile is called again until then.
        """
        client = self._client
        timeout = client._timeout if timeout is None else timeout
        attempts = Attempts(client._connection, timeout, self.request_id)
        seen: job_pb2.Job | None = None
        while seen is None or not ended(seen):
            request = job_pb2.WatchJobRequest(id=self.id)
            metadata = client._connection.metadata
            call = client._stubs().jobs.WatchJob(request, timeout=attempts.remaining(), metadata=metadata)
            try:
                for change in call:
                    if seen is None or moved(seen, change.job):
                        seen = change.job
                        yield seen
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise too_late(self.id, timeout) from error
                time.sleep(attempts.delay_after(error))
            finally:
                call.cancel()

    def wait(self, timeout: float | None = None) -> job_pb2.Job:
        """The job once it has ended, whichever way; `timeout` as in watch."""
        *_, last = self.watch(timeout)
        return last

    def result(self, timeout: float | None = None) -> Result:
        """Waits for the job and returns its result; raises what it ended with when it has none."""
        timeout = self._client._timeout if timeout is None else timeout
        self.wait(timeout)
        return self._client._answer(self._request, timeout, self.id)

    def cancel(self) -> job_pb2.Job:
        """Ends the job; one that has ended already is returned as it is."""
        return self._client._call(lambda stubs: stubs.jobs.CancelJob, job_pb2.CancelJobRequest(id=self.id)).job

    def delete(self) -> None:
        """Forgets a job that has ended, and its result."""
        self._client._call(lambda stubs: stubs.jobs.DeleteJob, job_pb2.DeleteJobRequest(id=self.id))


def _batches(packer: Packer, images: Iterable[ImageLike]) -> Iterator[Batch]:
    for image in images:
        if batch := packer.add(image):
            yield batch
    if batch := packer.rest():
        yield batch
