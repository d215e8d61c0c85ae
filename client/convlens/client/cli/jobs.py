"""`convlens jobs`: list, show, watch, result, cancel, delete."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import progress as bars

from convlens.client import Progress
from convlens.client.cli.as_json import Json, print_json
from convlens.client.cli.server import connected
from convlens.client.cli.terminal import err, line, out, row, table
from convlens.client.job_status import JobErrorInfo, JobState, JobStatus

app: Final = typer.Typer(help="Look at jobs, fetch their results, end them.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="The job's id.", show_default=False)]


@app.command("list")
def list_jobs(
    state: Annotated[
        str | None, typer.Option(help="Only those queued, running, succeeded, failed, cancelled or expired.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "--most", min=1, help="How many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first.

    JSON: `jobs`, each as by `show`.
    """
    names: Any = state  # checked by jobs()
    with connected() as client:
        jobs = [job for _, job in zip(range(limit), client.jobs(names), strict=False)]
    if as_json:
        print_json({"jobs": jobs})
        return
    listed = table("id", "state", "model", f"created ({datetime.now().astimezone():%Z})", "took")
    for job in jobs:
        created, ended = job.create_time, job.end_time
        took = f"{(ended - created).total_seconds():.2f} s" if created and ended else ""
        state_text = f"running {job.progress:.0%}" if job.state is JobState.RUNNING and job.progress else job.state
        row(listed, job.id, state_text, job.model, f"{created.astimezone():%m-%d %T}" if created else "", took)
    out.print(listed)


@app.command()
def show(job_id: JobId, as_json: Json = False) -> None:
    """Everything about a job.

    JSON: the fields of the SDK's JobStatus.
    """
    with connected() as client:
        _print(client.job(job_id).status(), as_json=as_json)


@app.command()
def watch(job_id: JobId, as_json: Json = False) -> None:
    """Print a line at every change of a job until it ends; exit status 1 unless it succeeded.

    JSON: each line as by `show`.
    """
    with connected() as client:
        for status in client.job(job_id).watch():
            if as_json:
                print_json(status)
                continue
            progress = f" {status.progress:.0%}" if status.state is JobState.RUNNING and status.progress else ""
            place = f", place {status.queue_position}" if status.queue_position is not None else ""
            reason = f": {status.error.reason}: {status.error.message}" if status.error else ""
            line(out, f"{datetime.now().astimezone():%T %Z} {status.state}{progress}{place}{reason}")
    if status.state is not JobState.SUCCEEDED:
        raise typer.Exit(1)


@app.command()
def result(
    job_id: JobId,
    folder: Annotated[Path, typer.Option("-o", "--out", help="Folder for pictures and arrays.")] = Path("out"),
    as_json: Json = False,
) -> None:
    """Wait for a job and write its pictures and arrays.

    JSON: `job_id`, `model`, `predictions`, `files`.
    """
    columns = bars.TextColumn("{task.description}"), bars.BarColumn(), bars.TextColumn("{task.percentage:.0f}%")
    with connected() as client, bars.Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("queued", total=1.0)

        def report(progress: Progress) -> None:
            bar.update(task, description=str(progress.state), completed=progress.fraction)

        fetched = client.job(job_id).result(progress=report)
        written = fetched.save(folder)
    if as_json:
        predictions = [[asdict(prediction) for prediction in image] for image in fetched.predictions]
        print_json({"job_id": job_id, "model": fetched.model, "predictions": predictions, "files": written})
        return
    for path in written:
        line(out, path)


@app.command()
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """End a job; one that has ended is left as it is.

    JSON: as by `show`.
    """
    with connected() as client:
        _print(client.job(job_id).cancel(), as_json=as_json)


@app.command()
def delete(job_id: JobId, as_json: Json = False) -> None:
    """Delete a job that has ended, and its result.

    JSON: `deleted`, the id.
    """
    with connected() as client:
        client.job(job_id).delete()
    if as_json:
        print_json({"deleted": job_id})
    else:
        line(out, f"{job_id} deleted")


def _print(job: JobStatus, *, as_json: bool) -> None:
    """Print what is known of a job."""
    if as_json:
        print_json(job)
        return
    facts = table("what", "value")
    for field in fields(job):
        value = getattr(job, field.name)
        if value not in (None, "", 0):
            row(facts, field.name.replace("_", " "), _text(field.name, value))
    out.print(facts)


def _text(name: str, value: object) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone():%F %T %Z}"
    if isinstance(value, JobErrorInfo):
        return "\n".join(filter(None, (value.reason, value.message, value.field)))
    if name == "progress":
        return f"{value:.0%}"
    return f"{value:,} bytes" if name == "result_bytes" else str(value)
