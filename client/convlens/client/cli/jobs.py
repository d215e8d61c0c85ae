"""`convlens jobs`: list, show, cancel."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from convlens.client.cli.server import connected
from convlens.client.cli.terminal import out, row, table
from convlens.client.job_status import JobErrorInfo, JobStatus

app: Final = typer.Typer(help="Look at jobs, and end them.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="The job's id.", show_default=False)]


@app.command("list")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only those queued, running, succeeded, failed …")] = None,
    most: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
) -> None:
    """Jobs, newest first."""
    listed = table("id", "state", "model", "images", "created", "took", "result")
    names: Any = state  # checked by jobs()
    with connected() as client:
        for _, job in zip(range(most), client.jobs(names), strict=False):
            created, ended = job.create_time, job.end_time
            took = f"{(ended - created).total_seconds():.2f} s" if created and ended else ""
            size = f"{job.result_bytes:,} B" if job.result_bytes else ""
            row(listed, job.id, job.state, job.model, job.images, f"{created:%F %T}" if created else "", took, size)
    out.print(listed)


@app.command()
def show(job_id: JobId) -> None:
    """Everything about a job."""
    with connected() as client:
        _print(client.job(job_id).status())


@app.command()
def cancel(job_id: JobId) -> None:
    """Ends a job; one that has ended is left as it is."""
    with connected() as client:
        _print(client.job(job_id).cancel())


def _print(job: JobStatus) -> None:
    """Print what is known of a job."""
    facts = table("what", "value")
    for field in fields(job):
        value = getattr(job, field.name)
        if value not in (None, "", 0):
            row(facts, field.name.replace("_", " "), _text(value))
    out.print(facts)


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%F %T} UTC"
    if isinstance(value, JobErrorInfo):
        return "\n".join(filter(None, (value.reason, value.message, value.field)))
    return str(value)
