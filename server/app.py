"""The web application: routes put together, errors turned into problem documents, background tasks started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from hypevolve import __version__, messages
from server import (
    api_access,
    api_campaigns,
    api_checkpoints,
    api_results,
    api_workers,
    gate,
    login,
    metrics,
    page_verbs,
    pages,
    problems,
    stream,
)
from server.access import Door, OpenTo, require_scopes
from server.artifacts import ArtifactStore
from server.coordinator import MOST_CHECKPOINT_BYTES, Coordinator
from server.database import Database
from server.express import Express

STATIC = Path(__file__).parent / "static"


def create_app(
    database: Database,
    *,
    root_path: str = "",
    open_to: OpenTo = "loopback",
    artifacts: ArtifactStore | None = None,
    most_checkpoint_bytes: int = MOST_CHECKPOINT_BYTES,
) -> FastAPI:
    """The coordinator's application over a migrated database.

    ``open_to`` is who may come without an access token. Without ``artifacts`` it refuses checkpoints.
    """
    coordinator = Coordinator(database, artifacts, most_checkpoint_bytes)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(coordinator.beat()), asyncio.create_task(coordinator.watch.run())]
        tasks += [asyncio.create_task(coordinator.collect()), asyncio.create_task(app.state.event_watch.run())]
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
        responses=problems.RESPONSES,
    )
    app.state.coordinator = coordinator
    app.state.event_watch = stream.event_watch(coordinator)
    app.state.door = Door(coordinator, open_to)
    app.add_middleware(Express, coordinator=coordinator, root_path=root_path)
    app.add_middleware(gate.Gate, door=app.state.door, root_path=root_path)
    app.add_middleware(_Address, root_path=root_path)  # the outermost: what is added last is asked first
    app.include_router(api_workers.router, prefix=messages.PREFIX)
    app.include_router(api_checkpoints.router, prefix=messages.PREFIX)
    app.include_router(api_campaigns.router, prefix=messages.PREFIX)
    app.include_router(api_results.router, prefix=messages.PREFIX)
    app.include_router(api_access.router, prefix=messages.PREFIX)
    app.include_router(stream.router, prefix=messages.PREFIX)
    app.include_router(metrics.router)
    app.include_router(login.router)
    app.include_router(page_verbs.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    problems.install(app)
    require_scopes(app, gate.OPEN)
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
