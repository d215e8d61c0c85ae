"""The client for asyncio programs: the same methods as Client, awaited. Each event loop has its own channel."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self, overload

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
from convlens.client.cancelling import ClientClosed, client_closed
from convlens.client.connection import TLS, Connection
from convlens.client.errors import ConvlensError, PermissionDenied
from convlens.client.images import ImageLike, Images, Outgoing, one_by_one
from convlens.client.options import Activations, GradCAM, Occlusion, Saliency, Visualization, divided
from convlens.client.packing import Batch, ItemError, Packer, checked_map, parted
from convlens.client.results import Result
from convlens.client.stubs import Stubs
from convlens.client.targets import (
    ItemTarget,
    MapTargets,
    OneTarget,
    Targets,
    checked_target,
    one_an_image,
    uneven,
)
from convlens.client.timeouts import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, checked_timeout
from convlens.v1 import job_pb2, model_pb2, spec_pb2

_PARENTS_CALLS: Final[list[Any]] = []
"""Calls that were under way when this process was forked; to free one takes locks that gRPC's threads may have held."""


@dataclass(frozen=True, slots=True)
class _Link:
    """What one event loop has of a connection."""

    process: int
    channel: grpc.aio.Channel
    stubs: Stubs
    closed: asyncio.Event

    def is_connected(self) -> bool:
        """Whether there is a connection just now."""
        return self.channel.get_state() is grpc.ChannelConnectivity.READY

    def check(self) -> None:
        """Raises ClientClosed once the client is closed."""
        if self.closed.is_set():
            raise client_closed()

    @contextmanager
    def running(self, begin: Callable[[], Any]) -> Iterator[Any]:
        """The call that `begin` makes, which ends with the `with`. ClientClosed once the client is closed."""
        self.check()
        call = begin()
        try:
            yield call
        except grpc.RpcError:
            self.check()
            raise
        except asyncio.CancelledError:  # which is also what gRPC makes of a closed channel
            task = asyncio.current_task()
            if not task or not task.cancelling():
                self.check()
            raise
        finally:
            if os.getpid() == self.process:
                call.cancel()
            else:
                _PARENTS_CALLS.append(call)

    async def pause(self, seconds: float) -> None:
        """Waits, at most until the client is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.closed.wait()
        self.check()


class AsyncClient:
    """A connection to a Convlens server, made at the first call.

    `target`, `timeout` and `connect_timeout` are those of Client. Calls raise the errors of convlens.client.errors. A
    client may be used from several event loops; it cannot be pickled. A child that is forked while a loop runs has no
    loop, and is told so: use a Client made in the child, or have multiprocessing spawn it.
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
        self._channels: dict[tuple[int, asyncio.AbstractEventLoop], _Link] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def __reduce__(self) -> str:
        raise TypeError("an AsyncClient cannot be pickled; make one in each process (results can be pickled)")

    async def close(self) -> None:
        """Ends this event loop's connection and the calls under way, which raise Cancelled at once.

        The server cancels the jobs that nobody waits for any more. A later call would make a new connection.
        """
        link = self._channels.pop((os.getpid(), asyncio.get_running_loop()), None)
        if link:
            link.closed.set()
            await link.channel.close()

    # --- what can be asked ---

    async def models(self) -> list[model_pb2.Model]:
        """The cards of all models served: names, input shapes, layers with shapes, labels, digest."""
        return list((await self._call(lambda stubs: stubs.models.ListModels, model_pb2.ListModelsRequest())).models)

    async def refused_models(self) -> list[model_pb2.RefusedModel]:
        """The models that live workers were told to serve and cannot: name, source, reason, worker."""
        return list((await self._call(lambda stubs: stubs.models.ListModels, model_pb2.ListModelsRequest())).refused)

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
            request_id=request_id, priority=priority, fresh=fresh, timeout=await self._job_limit(seconds),
            value_range=value_range,
        )  # fmt: skip
        return await self._answer(request, seconds)

    @overload
    def map(
        self, images: Iterable[ImageLike] | AsyncIterable[ImageLike], visualizations: Iterable[Visualization], *,
        errors: Literal["raise"] = ..., in_flight: int = ..., model: str = ...,
        target: MapTargets | AsyncIterable[OneTarget] = ..., scored_layer: str = ...,
        predictions: int | None = ..., priority: str = ..., fresh: bool = ..., timeout: float | None = ...,
        value_range: ValueRange | None = ...,
    ) -> AsyncIterator[Result]: ...  # fmt: skip
    @overload
    def map(
        self, images: Iterable[ImageLike] | AsyncIterable[ImageLike], visualizations: Iterable[Visualization], *,
        errors: Literal["return"], in_flight: int = ..., model: str = ...,
        target: MapTargets | AsyncIterable[OneTarget] = ..., scored_layer: str = ...,
        predictions: int | None = ..., priority: str = ..., fresh: bool = ..., timeout: float | None = ...,
        value_range: ValueRange | None = ...,
    ) -> AsyncIterator[Result | ItemError]: ...  # fmt: skip
    def map(
        self,
        images: Iterable[ImageLike] | AsyncIterable[ImageLike],
        visualizations: Iterable[Visualization],
        *,
        errors: Literal["raise", "return"] = "raise",
        in_flight: int = 4,
        model: str = "",
        target: MapTargets | AsyncIterable[OneTarget] = None,
        scored_layer: str = "",
        predictions: int | None = None,
        priority: str = "normal",
        fresh: bool = False,
        timeout: float | None = None,
        value_range: ValueRange | None = None,
    ) -> AsyncIterator[Result] | AsyncIterator[Result | ItemError]:
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
        each = images if isinstance(images, AsyncIterable) else one_by_one(images, value_range)
        pairs = _paired(each, one_an_image(target, images))
        return self._map(pairs, MapJobs(spec, target, seconds), Packer(value_range), errors, in_flight)

    async def _map(
        self,
        pairs: AsyncIterator[tuple[ImageLike, ItemTarget]],
        jobs: MapJobs,
        packer: Packer,
        errors: str,
        in_flight: int,
    ) -> AsyncIterator[Any]:
        waiting: deque[asyncio.Task[list[Result | ItemError]]] = deque()
        process = os.getpid()

        async def first() -> AsyncIterator[Result | ItemError]:
            for item in await waiting.popleft():
                if errors == "raise" and isinstance(item, Exception):
                    raise item
                yield item
                check_process(process, "map")

        try:
            async for batch in _batches(packer, pairs):
                if len(waiting) == in_flight:
                    async for item in first():
                        yield item
                waiting.append(asyncio.create_task(self._batch(packer, batch, jobs)))
            while waiting:
                async for item in first():
                    yield item
        finally:
            if os.getpid() == process:  # a fork's copies of the tasks never end
                await _cancelled(waiting)

    async def _batch(self, packer: Packer, batch: Batch, jobs: MapJobs) -> list[Result | ItemError]:
        """What became of each image of a job of map()."""
        if not batch.images:
            return batch.in_place([])
        began = time.monotonic()
        found = await self._each(batch.images, batch.targets, jobs)
        packer.took(len(batch), time.monotonic() - began)
        return batch.in_place(found)

    async def _each(self, images: Outgoing, targets: list[spec_pb2.Target], jobs: MapJobs) -> list[Result | ItemError]:
        try:
            request = jobs.request(images, targets, await self._job_limit(jobs.seconds))
            return list((await self._answer(request, jobs.seconds)).split())
        except ClientClosed:
            raise
        except ConvlensError as error:
            parts = parted(images, targets, error)
            if not parts:
                return [error] * len(images)
        return [item for part in parts for item in await self._each(*part, jobs)]

    # --- jobs ---

    async def submit(
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
    ) -> AsyncJob:
        """Queues a job and returns at once; it is computed whoever is connected.

        `timeout` is what it may take in seconds, from now to its end; by default the server's default, and for math.inf
        the server's maximum. The other options are those of visualize.
        """
        seconds = None if timeout is None else checked_timeout(timeout, math.inf)
        request = job_request(
            images, visualizations, model=model, target=target, scored_layer=scored_layer, predictions=predictions,
            request_id=request_id, priority=priority, fresh=fresh,
            timeout=await self._job_limit(seconds) if seconds == math.inf else seconds, value_range=value_range,
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

    def _link(self) -> _Link:
        """This process's and event loop's link."""
        try:
            key = (os.getpid(), asyncio.get_running_loop())
        except RuntimeError:
            raise ConvlensError(
                "no event loop runs in this process: one that ran when it was forked stays with its parent; use a "
                "Client, or asyncio.run() in a process that multiprocessing spawns"
            ) from None
        for old in [old for old in self._channels if old[0] != key[0] or old[1].is_closed()]:
            del self._channels[old]
        if key not in self._channels:
            channel = self._connection.channel(grpc.aio)
            self._channels[key] = _Link(key[0], channel, Stubs(channel), asyncio.Event())
        return self._channels[key]

    def _stubs(self) -> Stubs:
        return self._link().stubs

    async def _call(
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
                with link.running(partial(method(link.stubs), request, **options)) as call:
                    response = await call
                    self._connection.heard(await call.trailing_metadata())
                    return response
            except grpc.RpcError as error:
                await link.pause(attempts.delay_after(error, link.is_connected))

    async def _answer(self, request: JobRequest | None, timeout: float, job_id: str = "") -> Result:
        """The answer to a request, or of a job that has ended; resumed where it broke."""
        link = self._link()
        answer = Answer(self._connection, request, timeout, job_id)
        while True:
            method, message, seconds = answer.next_call(link.stubs)
            options = {"timeout": seconds, "metadata": self._connection.metadata_of(message)}
            try:
                with link.running(partial(method, message, **options)) as call:
                    if answer.unary:
                        answer.take(await call)
                    else:
                        async for part in call:
                            answer.take(part)
                    self._connection.heard(await call.trailing_metadata())
            except grpc.RpcError as error:
                await link.pause(answer.delay_after(error, link.is_connected))
            else:
                return answer.result()

    async def _job_limit(self, seconds: float) -> float | None:
        """What a job is told to take at most, whose caller has so many seconds; None for the server's default."""
        connection = self._connection
        if seconds > DEFAULT_TIMEOUT and connection.longest_job is None:
            try:
                connection.longest_job = (await self.server_info()).limits.max_timeout.ToNanoseconds() / 1e9
            except PermissionDenied:
                connection.longest_job = 0.0  # a token that may not read leaves it at the server's default
        return job_limit(seconds, connection.longest_job or 0.0)


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

    def watch(self, timeout: float | None = None) -> AsyncIterator[job_pb2.Job]:
        """The job now and at every change until it has ended; DeadlineExceeded after `timeout` seconds.

        `timeout` is by default the client's, math.inf for no limit, and 0 for the job now and nothing more. A server
        that goes away meanwhile is called again until then.
        """
        seconds = checked_timeout(timeout, self._client._timeout, or_zero=True)
        return self._watch(seconds) if seconds else self._once()

    async def _once(self) -> AsyncIterator[job_pb2.Job]:
        job = await self.status()
        yield job
        if not ended(job):
            raise too_late(self.id, 0)

    async def _watch(self, timeout: float) -> AsyncIterator[job_pb2.Job]:
        connection, link = self._client._connection, self._client._link()
        attempts = Attempts(connection, timeout, self.request_id)
        seen: job_pb2.Job | None = None
        process = os.getpid()
        while seen is None or not ended(seen):
            request = job_pb2.WatchJobRequest(id=self.id)
            options = {"timeout": attempts.remaining(), "metadata": connection.metadata}
            try:
                with link.running(partial(link.stubs.jobs.WatchJob, request, **options)) as call:
                    async for change in call:
                        connection.answered()
                        if seen is None or moved(seen, change.job):
                            seen = change.job
                            yield seen
                            check_process(process, "watch")
            except grpc.RpcError as error:
                is_late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                if is_late and (connection.reached or link.is_connected()):
                    raise too_late(self.id, timeout) from error
                await link.pause(attempts.delay_after(error, link.is_connected))

    async def wait(self, timeout: float | None = None) -> job_pb2.Job:
        """The job once it has ended, whichever way; `timeout` as in watch, 0 for one that has ended by now."""
        async for job in self.watch(timeout):
            last = job
        return last

    async def result(self, timeout: float | None = None) -> Result:
        """Waits for the job, `timeout` as in wait, and returns its result; raises what it ended with without one."""
        seconds = checked_timeout(timeout, self._client._timeout, or_zero=True)
        await self.wait(seconds)
        return await self._client._answer(self._request, seconds or self._client._timeout, self.id)

    async def cancel(self) -> job_pb2.Job:
        """Ends the job; one that has ended already is returned as it is."""
        request = job_pb2.CancelJobRequest(id=self.id)
        return (await self._client._call(lambda stubs: stubs.jobs.CancelJob, request)).job

    async def delete(self) -> None:
        """Forgets a job that has ended, and its result."""
        await self._client._call(lambda stubs: stubs.jobs.DeleteJob, job_pb2.DeleteJobRequest(id=self.id))


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Ends tasks, and waits until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _paired(
    images: Iterable[ImageLike] | AsyncIterable[ImageLike], targets: Iterable[Any] | AsyncIterable[Any] | None
) -> AsyncIterator[tuple[ImageLike, ItemTarget]]:
    """As paired() of targets."""
    if targets is None:
        async for image in _each_of(images):
            yield image, None
        return
    rest, count = _each_of(targets), 0
    async for image in _each_of(images):
        try:
            target = await anext(rest)
        except StopAsyncIteration:
            raise uneven(count, "more") from None
        yield image, checked_target(target)
        count += 1
    async for _ in rest:
        raise uneven("more", count)


async def _batches(packer: Packer, pairs: AsyncIterator[tuple[ImageLike, ItemTarget]]) -> AsyncIterator[Batch]:
    async for image, target in pairs:
        if batch := packer.add(image, target):
            yield batch
    if batch := packer.rest():
        yield batch


async def _each_of(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
