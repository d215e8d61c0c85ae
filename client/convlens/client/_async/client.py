"""The client: models, maps and jobs of one server."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Literal, Self, overload

from convlens.client._async.calls import AsyncCalls
from convlens.client._async.job import AsyncJob
from convlens.client._async.mapping import AsyncMapping
from convlens.client._async.shortcuts import AsyncShortcuts
from convlens.client.arrays import ValueRange
from convlens.client.async_transport import run_blocking
from convlens.client.batching import Batcher, ItemError, check_map_options
from convlens.client.connection import TLS, Connection
from convlens.client.images import AsyncMapImages, Images, one_by_one, pack
from convlens.client.job_status import JobStatus, StateName, state_number
from convlens.client.model_card import ModelCard, RefusedModel, ServerInfo
from convlens.client.options import Visualization
from convlens.client.progress import ProgressCallback, count_of, image_counter, progress_reporter
from convlens.client.request import Priority, new_request, new_spec
from convlens.client.result import Result
from convlens.client.targets import AsyncMapTargets, Targets, one_an_image
from convlens.client.timeouts import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, checked_timeout
from convlens.v1 import job_pb2, model_pb2


class AsyncClient(AsyncShortcuts):
    """A client of the Convlens server at `target`; it connects at the first call.

    `target` is HOST:PORT, or one of gRPC's dns:, ipv4:, ipv6:, unix: and unix-abstract: names; InvalidArgument for all
    else. `timeout`, in seconds, holds for each call, queueing and retries included; math.inf is no limit. A server that
    was not reached within `connect_timeout` seconds is given up: Unavailable (SERVER_UNREACHABLE) says why. Calls raise
    the errors of convlens.client.errors.

    The synchronous client may be shared by threads and makes a channel for each process; sync_transport.py says more of
    forks. The asynchronous client makes a channel for each event loop; a child that is forked while a loop runs has no
    loop: use a synchronous client made in the child, or let multiprocessing spawn it. Neither can be pickled.
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
        seconds = checked_timeout(timeout, DEFAULT_TIMEOUT)
        connect_seconds = checked_timeout(connect_timeout, DEFAULT_CONNECT_TIMEOUT, "connect_timeout")
        self._calls = AsyncCalls(Connection(target, token, tls, connect_seconds), seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._calls.connection.target}>"

    def __reduce__(self) -> str:
        raise TypeError(f"{type(self).__name__} cannot be pickled; make one in each process (results can be pickled)")

    async def close(self) -> None:
        """Close the connection and end the calls under way, which raise Cancelled at once.

        The synchronous client ends the calls of all threads, the asynchronous one those of the running event loop. The
        server cancels the jobs that nobody waits for any more. A later call makes a new connection.
        """
        await self._calls.transport.close()

    def with_token(self, token: str | None, *, reserve: Callable[[int], object] | None = None) -> Self:
        """Return a client that makes its calls with another token, over the connection of this one.

        For programs that call on behalf of several users. `reserve` is called with the bytes of each result before
        they are received, and what it raises ends the call. Closing either client closes both. InvalidArgument for a
        token that cannot be sent.
        """
        client = type(self).__new__(type(self))
        client._calls = self._calls.with_token(token, reserve)
        return client

    # --- models ---

    async def models(self) -> list[ModelCard]:
        """Return the cards of all models served."""
        response = await self._calls.unary(lambda stubs: stubs.models.ListModels, model_pb2.ListModelsRequest())
        return [ModelCard.from_message(model) for model in response.models]

    async def refused_models(self) -> list[RefusedModel]:
        """Return the models that live workers were configured to serve and cannot, with the reasons."""
        response = await self._calls.unary(lambda stubs: stubs.models.ListModels, model_pb2.ListModelsRequest())
        return [RefusedModel.from_message(model) for model in response.refused]

    async def model(self, name: str) -> ModelCard:
        """Return the card of one model. NotFound lists the models there are."""
        request = model_pb2.GetModelRequest(name=name)
        return ModelCard.from_message((await self._calls.unary(lambda stubs: stubs.models.GetModel, request)).model)

    async def server_info(self) -> ServerInfo:
        """Return the server's version, limits and features."""
        request = model_pb2.GetServerInfoRequest()
        return ServerInfo.from_message(await self._calls.unary(lambda stubs: stubs.models.GetServerInfo, request))

    # --- maps ---

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
        priority: Priority = "normal",
        fresh: bool = False,
        timeout: float | None = None,
        value_range: ValueRange | None = None,
        progress: bool | ProgressCallback = False,
    ) -> Result:
        """Compute the visualizations on every image and return the arrays, verified.

        `model`: by default the first by name of those served.
        `target`: by default the predicted class of each image; else an index, a label, TopK or ALL_UNITS for all
        images, or a list or array with one for each, where an inner list has several units.
        `scored_layer`: the layer whose units are the targets; by default that of the logits.
        `predictions`: how many of the best classes to report; None for as many as come for free.
        `request_id`: a UUID; repeated calls with the same one are one job.
        `fresh`: compute even if an equal request was answered lately or is under way; by default that answers this one,
        too (`result.cached`).
        `timeout`: seconds, by default the client's. An unreachable or overloaded server is tried again until then;
        math.inf is as long as the server lets a job take.
        `value_range`: what is black and what white in float arrays: (0, 255), (0, 1) or (-1, 1).
        `progress`: True for a bar (needs convlens-client[progress]), or a function that gets a Progress at each step.
        """
        seconds, reporter = checked_timeout(timeout, self._calls.timeout), progress_reporter(progress)
        spec = new_spec(
            visualizations, model=model, scored_layer=scored_layer, predictions=predictions, priority=priority,
            fresh=fresh,
        )  # fmt: skip
        packed = await run_blocking(pack, images, value_range)
        request = new_request(spec, packed, target, request_id, await self._calls.job_time_limit(seconds))
        with reporter as report:
            return await self._calls.visualize(request, seconds, report=report)

    @overload
    def map(
        self, images: AsyncMapImages, visualizations: Iterable[Visualization], *, errors: Literal["raise"] = ...,
        in_flight: int = ..., model: str = ..., target: AsyncMapTargets = ..., scored_layer: str = ...,
        predictions: int | None = ..., priority: Priority = ..., fresh: bool = ..., timeout: float | None = ...,
        value_range: ValueRange | None = ..., progress: bool | ProgressCallback = ...,
    ) -> AsyncIterator[Result]: ...  # fmt: skip
    @overload
    def map(
        self, images: AsyncMapImages, visualizations: Iterable[Visualization], *, errors: Literal["return"],
        in_flight: int = ..., model: str = ..., target: AsyncMapTargets = ..., scored_layer: str = ...,
        predictions: int | None = ..., priority: Priority = ..., fresh: bool = ..., timeout: float | None = ...,
        value_range: ValueRange | None = ..., progress: bool | ProgressCallback = ...,
    ) -> AsyncIterator[Result | ItemError]: ...  # fmt: skip
    def map(
        self,
        images: AsyncMapImages,
        visualizations: Iterable[Visualization],
        *,
        errors: Literal["raise", "return"] = "raise",
        in_flight: int = 4,
        model: str = "",
        target: AsyncMapTargets = None,
        scored_layer: str = "",
        predictions: int | None = None,
        priority: Priority = "normal",
        fresh: bool = False,
        timeout: float | None = None,
        value_range: ValueRange | None = None,
        progress: bool | ProgressCallback = False,
    ) -> AsyncIterator[Result] | AsyncIterator[Result | ItemError]:
        """Yield a result for each of very many images, in order, in bounded memory.

        Images are sent 8 to 64 per job, depending on how long jobs take, and `in_flight` jobs at once. `errors` says
        what becomes of an image that has no result: "raise" ends the iteration when its turn comes, "return" yields the
        error in the result's place. `target` is one for all images, or an iterable with one for each (an inner list has
        several units); InvalidArgument if one of the two ends before the other. `timeout` is that of each job,
        `progress` counts the images yielded; the other parameters are those of visualize(). Leaving the iteration, by
        break, an error, or closing the client, cancels the jobs under way. A result owns its memory: keeping one does
        not keep its neighbours.
        """
        check_map_options(errors, in_flight)
        spec = new_spec(
            visualizations, model=model, scored_layer=scored_layer, predictions=predictions, priority=priority,
            fresh=fresh,
        )  # fmt: skip
        seconds = checked_timeout(timeout, self._calls.timeout)
        targets = one_an_image(target, images)
        counter = image_counter(progress_reporter(progress), count_of(images))
        mapping = AsyncMapping(self._calls, spec, target, seconds, Batcher(value_range))
        return mapping.run(one_by_one(images, value_range), targets, in_flight, errors, counter)

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
        priority: Priority = "normal",
        fresh: bool = False,
        timeout: float | None = None,
        value_range: ValueRange | None = None,
    ) -> AsyncJob:
        """Queue a job and return at once; it is computed whether or not this client stays connected.

        `timeout` is what the job may take in seconds, from now to its end: by default the server's default, for
        math.inf the server's maximum. The other parameters are those of visualize().
        """
        seconds = None if timeout is None else checked_timeout(timeout, math.inf)
        spec = new_spec(
            visualizations, model=model, scored_layer=scored_layer, predictions=predictions, priority=priority,
            fresh=fresh,
        )  # fmt: skip
        packed = await run_blocking(pack, images, value_range)
        limit = await self._calls.job_time_limit(seconds) if seconds == math.inf else seconds
        request = new_request(spec, packed, target, request_id, limit)
        submit = await self._calls.unary(lambda stubs: stubs.jobs.SubmitJob, request.serialized, request.request_id)
        return AsyncJob(self._calls, submit.job.id, request)

    def job(self, job_id: str) -> AsyncJob:
        """Return a job by its id, from whichever process it was submitted."""
        return AsyncJob(self._calls, job_id)

    async def jobs(self, state: StateName | None = None) -> AsyncIterator[JobStatus]:
        """Yield all jobs, newest first; only those in `state` if it is given."""
        number = state_number(state)
        token = ""
        while True:
            request = job_pb2.ListJobsRequest(page_token=token, state=number)
            page = await self._calls.unary(lambda stubs: stubs.jobs.ListJobs, request)
            for job in page.jobs:
                yield JobStatus.from_message(job)
            token = page.next_page_token
            if not token:
                return
