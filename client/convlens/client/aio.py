"""The client for asyncio programs: the same methods as Client, awaited. Each event loop has its own channel."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
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


class AsyncClient:
    """A connection to a Convlens server, made at the first call.

    `timeout` is in seconds and holds for each call, queueing and retries included; 300 unless told otherwise. Calls
    raise the errors of convlens.client.errors. A client may be used from several event loops; it cannot be pickled.
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
        self._channels: dict[tuple[int, asyncio.AbstractEventLoop], tuple[Any, Stubs]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def __reduce__(self) -> str:
        raise TypeError("an AsyncClient cannot be pickled; make one in each process (results can be pickled)")

    async def close(self) -> None:
        """Ends this event loop's connection; a later call would make a new one."""
        found = self._channels.pop((os.getpid(), asyncio.get_running_loop()), None)
        if found:
            await found[0].close()
        self._connection.memory.close()

    # --- what can be asked ---

    async def models(self) -> list[model_pb2.Model]:
        """The cards of all models served: names, input shapes, layers with shapes, labels, digest."""
        return list((await self._call(lambda stubs: stubs.models.ListModels, model_pb2.ListModelsRequest())).models)

    async def model(self, name: str) -> model_pb2.Model:
        """One model's card. NotFound names the models there are."""
        return (await self._call(lambda stubs: stubs.models.GetModel, model_pb2.GetModelRequest(name=name))).model

    async def server_info(self) -> model_pb2.GetServerInfoResponse:
        """The server's version, limits and features."""
        return await self._call(lambda stubs: stubs.models.GetServerInfo, model_pb2.GetServerInfoRequest())

    # --- maps ---

    async def saliency(self, images: Images, method: str = "vanilla", **options: Any) -> Result:
        """See Saliency for its options; further ones as in visualize."""
        own, rest = divided(Saliency, options)
        return await self.visualize(images, [Saliency(method, **own)], **rest)

    async def grad_cam(self, images: Images, layer: str | Sequence[str] | None = None, **options: Any) -> Result:
        """See GradCAM for its options; several layers make several maps. Further options as in visualize."""
        own, rest = divided(GradCAM, options)
        layers = [layer] if layer is None or isinstance(layer, str) else layer
        return await self.visualize(images, [GradCAM(it, **own) for it in layers], **rest)

    async def activations(
        self, images: Images, layers: Sequence[str] | str, channels: Sequence[int] | None = None, **options: Any
    ) -> Result:
        """See Activations for its options; further ones as in visualize."""
        own, rest = divided(Activations, options)
        return await self.visualize(images, [Activations(layers, channels, **own)], **rest)

    async def occlusion(self, images: Images, **options: Any) -> Result:
        """See Occlusion for its options; further ones as in visualize."""
        own, rest = divided(Occlusion, options)
        return await self.visualize(images, [Occlusion(**own)], **rest)

    async def visualize(
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
        return await self._answer(request, timeout)

    @overload
    def map(
        self, images: Iterable[ImageLike] | AsyncIterable[ImageLike], visualizations: Sequence[Visualization], *,
        errors: Literal["raise"] = ..., in_flight: int = ..., **options: Any,
    ) -> AsyncIterator[Result]: ...  # fmt: skip
    @overload
    def map(
        self, images: Iterable[ImageLike] | AsyncIterable[ImageLike], visualizations: Sequence[Visualization], *,
        errors: Literal["return"], in_flight: int = ..., **options: Any,
    ) -> AsyncIterator[Result | ItemError]: ...  # fmt: skip
    async def map(
        self,
        images: Iterable[ImageLike] | AsyncIterable[ImageLike],
        visualizations: Sequence[Visualization],
        *,
        errors: Literal["raise", "return"] = "raise",
        in_flight: int = 4,
        **options: Any,
    ) -> AsyncIterator[Any]:
        """A result for each image, in order, of very many: packed 8 to 64 a job, as many as take a moment,
        `in_flight` jobs at once.

        Memory holds no more than those, however many come. `errors` says what becomes of an image that has no result:
        raise ends the iteration when its turn comes, return gives the error in the result's place; its neighbours have
        theirs all the same. Further options as in visualize, but for a list of targets and a request id.
        """
        value_range: ValueRange | None = options.pop("value_range", None)
        packer = Packer(value_range)
        waiting: deque[asyncio.Task[list[Result | ItemError]]] = deque()

        async def first() -> AsyncIterator[Result | ItemError]:
            for item in await waiting.popleft():
                if errors == "raise" and isinstance(item, Exception):
                    raise item
                yield item

        try:
            each = images if isinstance(images, AsyncIterable) else one_by_one(images, value_range)
            async for batch in _batches(packer, each):
                if len(waiting) == in_flight:
                    async for item in first():
                        yield item
                waiting.append(asyncio.create_task(self._batch(packer, batch, visualizations, options)))
            while waiting:
                async for item in first():
                    yield item
        finally:
            for task in waiting:
                task.cancel()

    async def _batch(
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
        found = await self._each(batch.images, visualizations, options)
        packer.took(len(batch), time.monotonic() - began)
        return batch.in_place(found)

    async def _each(
        self, images: Outgoing, visualizations: Sequence[Visualization], options: dict[str, Any]
    ) -> list[Result | ItemError]:
        try:
            return list((await self.visualize(images, visualizations, **options)).split())
        except ConvlensError as error:
            parts = parted(images, error)
            if not parts:
                return [error] * len(images)
        return [item for part in parts for item in await self._each(part, visualizations, options)]

    # --- jobs ---

    async def submit(
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
    ) -> AsyncJob:
        """Queues a job and returns at once; it is computed whoever is connected, within `timeout` seconds."""
        request = job_request(
            images, visualizations, model=model, target=target, scored_layer=scored_layer, predictions=predictions,
            request_id=request_id, priority=priority, fresh=fresh, timeout=timeout, value_range=value_range,
        )  # fmt: skip
        submit = request.serialized
        response = await self._call(lambda stubs: stubs.jobs.SubmitJob, submit, request_id=request.request_id)
        return AsyncJob(self, response.job.id, request)

    def job(self, job_id: str) -> AsyncJob:
        """A job by its id, from whichever process it was submitted."""
        return AsyncJob(self, job_id)

    async def jobs(self, state: str | None = None) -> AsyncIterator[job_pb2.Job]:
        """All jobs, newest first; only those in `state` (queued, running, succeeded…) when given."""
        wanted = job_state(state)
        token = ""
        while True:
            request = job_pb2.ListJobsRequest(page_token=token, state=wanted)
            page = await self._call(lambda stubs: stubs.jobs.ListJobs, request)
            for job in page.jobs:
                yield job
            token = page.next_page_token
            if not token:
                return

    # --- calls ---

    def _stubs(self) -> Stubs:
        """This process's and event loop's stubs."""
        key = (os.getpid(), asyncio.get_running_loop())
        for old in [old for old in self._channels if old[0] != key[0] or old[1].is_closed()]:
            del self._channels[old]
        if key not in self._channels:
            channel = self._connection.channel(grpc.aio)
            self._channels[key] = (channel, Stubs(channel))
        return self._channels[key][1]

    async def _call(
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
                call = method(self._stubs())(request, timeout=attempts.remaining(), metadata=self._connection.metadata)
                response = await call
            except grpc.RpcError as error:
                await asyncio.sleep(attempts.delay_after(error))
            else:
                self._connection.heard(await call.trailing_metadata())
                return response

    async def _answer(self, request: JobRequest | None, timeout: float, job_id: str = "") -> Result:
        """The answer to a request, or of a job that has ended; resumed where it broke."""
        with Answer(self._connection, request, timeout, job_id) as answer:
            while True:
                method, message, seconds = answer.next_call(self._stubs())
                try:
                    call = method(message, timeout=seconds, metadata=self._connection.metadata)
                    if answer.unary:
                        answer.take(await call)
                    else:
                        async for part in call:
                            answer.take(part)
                    self._connection.heard(await call.trailing_metadata())
                except grpc.RpcError as error:
                    await asyncio.sleep(answer.delay_after(error))
                else:
                    return answer.result()


class AsyncJob:
    """A job on the server."""

    def __init__(self, client: AsyncClient, job_id: str, request: JobRequest | None = None) -> None:
        self._client = client
        self._request = request
        self.id = job_id
        self.request_id = request.request_id if request else ""

    def __repr__(self) -> str:
        return f"<AsyncJob {self.id}>"

    async def status(self) -> job_pb2.Job:
        """The job as it stands now: state, times, attempts, place in the queue, error."""
        request = job_pb2.GetJobRequest(id=self.id)
        return (await self._client._call(lambda stubs: stubs.jobs.GetJob, request)).job

    async def watch(self, timeout: float | None = None) -> AsyncIterator[job_pb2.Job]:
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
                async for change in call:
                    if seen is None or moved(seen, change.job):
                        seen = change.job
                        yield seen
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise too_late(self.id, timeout) from error
                await asyncio.sleep(attempts.delay_after(error))
            finally:
                call.cancel()

    async def wait(self, timeout: float | None = None) -> job_pb2.Job:
        """The job once it has ended, whichever way; `timeout` as in watch."""
        async for job in self.watch(timeout):
            last = job
        return last

    async def result(self, timeout: float | None = None) -> Result:
        """Waits for the job and returns its result; raises what it ended with when it has none."""
        timeout = self._client._timeout if timeout is None else timeout
        await self.wait(timeout)
        return await self._client._answer(self._request, timeout, self.id)

    async def cancel(self) -> job_pb2.Job:
        """Ends the job; one that has ended already is returned as it is."""
        request = job_pb2.CancelJobRequest(id=self.id)
        return (await self._client._call(lambda stubs: stubs.jobs.CancelJob, request)).job

    async def delete(self) -> None:
        """Forgets a job that has ended, and its result."""
        await self._client._call(lambda stubs: stubs.jobs.DeleteJob, job_pb2.DeleteJobRequest(id=self.id))


async def _batches(packer: Packer, images: Iterable[ImageLike] | AsyncIterable[ImageLike]) -> AsyncIterator[Batch]:
    async for image in _each_of(images):
        if batch := packer.add(image):
            yield batch
    if batch := packer.rest():
        yield batch


async def _each_of(images: Iterable[ImageLike] | AsyncIterable[ImageLike]) -> AsyncIterator[ImageLike]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image
