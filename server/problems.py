"""Errors as RFC 9457 problem documents, whatever raised them: ours, FastAPI's, Starlette's, or a surprise."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import iter_route_contexts
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException

from evolution.problems import InvalidCampaign
from hypevolve import messages
from server import pages
from server.errors import CoordinatorError

log = logging.getLogger("server")

MEDIA_TYPE = "application/problem+json"
MOST_ITEMS = 20

_DESCRIBED = {
    401: "No access token, or one that is unknown, revoked or expired",
    403: "The token is valid, and this is not for it",
    404: "No such campaign, candidate, token or address",
    405: "This address does not take that method",
    408: "The request did not arrive in time",
    409: "The state of things forbids it",
    413: "The body is larger than this route takes",
    422: "The request is wrong; `errors` says where and what to do",
    426: "This worker speaks another protocol; `detail` says what to install",
    429: "More requests than one caller may send; repeat it after Retry-After seconds",
    500: "The coordinator made a mistake; its log has the details",
    503: "The database cannot answer now; repeat the request after Retry-After seconds",
}
RESPONSES: dict[int | str, dict[str, object]] = {
    status: {"description": words, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status, words in _DESCRIBED.items()
}


def answer(path: str, error: CoordinatorError) -> JSONResponse:
    return _document(path, error.status, error.kind, error.detail, error.errors, error.headers)


def install(app: FastAPI) -> None:
    """Answer every exception of ``app`` with a problem."""

    @app.exception_handler(CoordinatorError)
    async def known(request: Request, error: CoordinatorError) -> JSONResponse:
        return answer(request.url.path, error)

    @app.exception_handler(InvalidCampaign)
    async def campaign(request: Request, error: InvalidCampaign) -> JSONResponse:
        items = [messages.ErrorItem(key=p.key, message=p.message, remedy=p.remedy, line=p.line) for p in error.problems]
        return _document(request.url.path, 422, "invalid-campaign", str(error), items)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        items = [
            messages.ErrorItem(key=".".join(str(part) for part in e["loc"]), message=e["msg"])
            for e in error.errors()[:MOST_ITEMS]
        ]
        detail = "; ".join(f"{item.key}: {item.message}" for item in items)
        return _document(request.url.path, 422, "invalid-request", f"{detail}; the API is described at /docs", items)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        path, headers = request.url.path, dict(error.headers or {})
        if error.status_code == 404:
            detail = f"there is nothing at {path}; the API is described at /docs"
            if "text/html" in request.headers.get("accept", ""):
                return await pages.problem(request, 404, detail)
            return _document(path, 404, "no-such-address", detail)
        if error.status_code == 405:
            taken = ", ".join(sorted(_methods(request)))
            return _document(
                path, 405, "method", f"{path} does not take {request.method}; it takes {taken}", headers={"Allow": taken}
            )
        if error.status_code == 400:  # FastAPI's word for a body that is no JSON
            return _document(path, 422, "not-json", "the body is not JSON; the API is described at /docs")
        return _document(path, error.status_code, "http", str(error.detail), headers=headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # The route's pattern, not the address: a lease token stands in some of them.
        route = getattr(request.scope.get("route"), "path", "an unknown route")
        log.error("%s %s failed", request.method, route, exc_info=error)
        detail = "the coordinator made a mistake; its log has the details. The same request may be repeated"
        return _document(request.url.path, 500, "internal", detail)


def _methods(request: Request) -> set[str]:
    """What an address takes: Starlette names the methods of the first route alone."""
    path = get_route_path(request.scope)
    fits = [
        c for c in iter_route_contexts(request.app.routes) if (regex := getattr(c, "path_regex", None)) and regex.match(path)
    ]
    return {method for context in fits for method in context.methods or ()}


def _document(
    path: str,
    status: int,
    kind: str,
    detail: str,
    errors: Sequence[messages.ErrorItem] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    title = kind.replace("-", " ").capitalize() if kind != "http" else HTTPStatus(status).phrase
    problem = messages.Problem(
        type=f"/problems/{kind}", title=title, status=status, detail=detail, instance=path, errors=list(errors)
    )
    return JSONResponse(problem.model_dump(), status, dict(headers or {}), media_type=MEDIA_TYPE)
