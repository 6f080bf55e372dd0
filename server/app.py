"""The web application: routes put together, errors turned into problem documents, background tasks started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from evolution.problems import InvalidCampaign
from hypevolve import __version__, messages
from server import api_campaigns, api_checkpoints, api_workers, pages
from server.artifacts import ArtifactStore
from server.coordinator import MOST_CHECKPOINT_BYTES, Coordinator
from server.database import Database
from server.errors import CoordinatorError, Unavailable

log = logging.getLogger("server")

STATIC = Path(__file__).parent / "static"


def create_app(
    database: Database,
    *,
    root_path: str = "",
    artifacts: ArtifactStore | None = None,
    most_checkpoint_bytes: int = MOST_CHECKPOINT_BYTES,
) -> FastAPI:
    """The coordinator's application over a migrated database. Without ``artifacts`` it refuses checkpoints."""
    coordinator = Coordinator(database, artifacts, most_checkpoint_bytes)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(coordinator.beat()), asyncio.create_task(coordinator.watch.run())]
        tasks.append(asyncio.create_task(coordinator.collect()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    app = FastAPI(
        title="Hypevolve",
        version=__version__,
        description="Hyperparameter evolution for object detectors, as a distributed service.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{messages.PREFIX}/openapi.json",
        responses={"4XX": {"model": messages.Problem, "description": "A problem that names the place and the remedy"}},
    )
    app.state.coordinator = coordinator
    app.add_middleware(_Address, root_path=root_path)
    app.include_router(api_workers.router, prefix=messages.PREFIX)
    app.include_router(api_checkpoints.router, prefix=messages.PREFIX)
    app.include_router(api_campaigns.router, prefix=messages.PREFIX)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _answer_errors(app)
    return app


class _Address:
    """The prefix that a proxy gives our addresses; and none holds a NUL, which PostgreSQL's text cannot."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._root_path:
            scope = {**scope, "root_path": self._root_path}
        if scope["type"] == "http" and ("\x00" in scope["path"] or b"%00" in scope["query_string"]):
            scope = {**scope, "path": "/address-with-a-nul-character", "query_string": b""}
        await self._app(scope, receive, send)


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(CoordinatorError)
    async def known(request: Request, error: CoordinatorError) -> JSONResponse:
        headers = {"Retry-After": "1"} if isinstance(error, Unavailable) else {}
        return _problem(request, error.status, error.kind, error.detail, error.errors, headers)

    @app.exception_handler(InvalidCampaign)
    async def campaign(request: Request, error: InvalidCampaign) -> JSONResponse:
        items = [messages.ErrorItem(key=p.key, message=p.message, remedy=p.remedy, line=p.line) for p in error.problems]
        return _problem(request, 422, "invalid-campaign", str(error), items)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        items = [
            messages.ErrorItem(key=".".join(str(part) for part in e["loc"]), message=e["msg"]) for e in error.errors()[:20]
        ]
        detail = "; ".join(f"{item.key}: {item.message}" for item in items)
        return _problem(request, 422, "invalid-request", detail, items)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"there is nothing at {request.url.path}; the API is described at /docs"
            if "text/html" in request.headers.get("accept", ""):
                return await pages.problem(request, 404, detail)
        return _problem(request, error.status_code, "http", detail, headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _problem(request, 500, "internal", "the coordinator made a mistake; its log has the details")


def _problem(
    request: Request,
    status: int,
    kind: str,
    detail: str,
    errors: Sequence[messages.ErrorItem] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    problem = messages.Problem(
        type=f"/problems/{kind}",
        title=kind.replace("-", " ").capitalize(),
        status=status,
        detail=detail,
        instance=request.url.path,
        errors=list(errors),
    )
    return JSONResponse(problem.model_dump(), status, headers, media_type="application/problem+json")
