"""Jobs that are computed whether or not their caller waits: submit, look, watch, fetch, cancel, delete."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from convlens.client.job_status import JobStatus, StateName
from convlens.client.json_values import to_json_value
from convlens.web import events, forms, results
from convlens.web.openapi import EVENTS, PROBLEMS, RESULT, returns
from convlens.web.state import Client, while_connected

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=PROBLEMS)
JobId = Annotated[str, Path(description="the job's id", min_length=1)]
MAX_LISTED: Final = 1000


@router.post("", status_code=202, openapi_extra=forms.OPENAPI, responses=returns("JobStatus", 202))
async def submit_job(request: Request, client: Client) -> JSONResponse:
    """Queue a job, and return it at once. `Location` is its address."""
    form = await forms.read_form(request)
    job = await while_connected(request, client.submit(form.images, **form.job.arguments()))
    location = f"{router.prefix}/{job.id}"
    return JSONResponse(to_json_value(await while_connected(request, job.status())), 202, {"Location": location})


@router.get("", responses=returns("Jobs"))
async def list_jobs(
    request: Request,
    client: Client,
    state: Annotated[StateName | None, Query(description="only those in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED, description="how many, newest first")] = 20,
) -> Any:
    """The jobs of the caller, newest first."""

    async def read() -> list[JobStatus]:
        listed: list[JobStatus] = []
        async for job in client.jobs(state):
            listed.append(job)
            if len(listed) == limit:
                break
        return listed

    return to_json_value({"jobs": await while_connected(request, read())})


@router.get("/{job_id}", responses=returns("JobStatus"))
async def show_job(request: Request, client: Client, job_id: JobId) -> Any:
    """A job as it is now."""
    return to_json_value(await while_connected(request, client.job(job_id).status()))


@router.get("/{job_id}/result", responses=RESULT)
async def fetch_result(
    request: Request, client: Client, job_id: JobId, picture: results.PictureOptions
) -> Response:  # fmt: skip
    """The result of a job, once it has ended: by `Accept` as of visualize. A picture shows the map alone."""
    media_type = results.accepted_media_type(request)
    job = client.job(job_id)
    result = await while_connected(request, job.result())
    return await asyncio.to_thread(results.respond, result, media_type, picture)


@router.get("/{job_id}/events", response_class=StreamingResponse, responses=EVENTS)
async def watch_job(request: Request, client: Client, job_id: JobId) -> StreamingResponse:
    """The job now, and at each change and progress, as server-sent events that end with the job."""
    changes = client.job(job_id).watch(math.inf)
    first = await while_connected(request, anext(changes))
    return StreamingResponse(events.job_events(first, changes), media_type=events.MEDIA_TYPE)


@router.post("/{job_id}/cancel", responses=returns("JobStatus"))
async def cancel_job(request: Request, client: Client, job_id: JobId) -> Any:
    """End a job; one that has ended stays as it is."""
    return to_json_value(await while_connected(request, client.job(job_id).cancel()))


@router.delete("/{job_id}", status_code=204, response_model=None)
async def delete_job(request: Request, client: Client, job_id: JobId) -> None:
    """Delete a job that has ended, and its result."""
    await while_connected(request, client.job(job_id).delete())
