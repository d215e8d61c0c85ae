"""The page: one file of HTML, with what it needs beside it in static/."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.staticfiles import StaticFiles

from convlens.web.settings import PROBE_PATH

STATIC: Final = Path(__file__).parents[1] / "static"
router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/jobs/{job_id}")
async def show_page() -> FileResponse:
    """Return the page, which shows the job of its address, if there is one."""
    return FileResponse(STATIC / "index.html")


@router.get(PROBE_PATH)
async def report_health() -> PlainTextResponse:
    """Say that the gateway runs; whether its server does is another question."""
    return PlainTextResponse("ok\n")


def add_page(app: FastAPI) -> None:
    """Serve the page and its files."""
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC, check_dir=False))
