"""The short way of the three requests that workers send all the time: ask, heartbeat, result.

FastAPI's layers cost several times what these requests do. A request of these that is plain (its address as documented, a JSON
body without mistakes, a caller who may do this in every campaign) is answered here; everything else goes on to FastAPI, whose
routes of the same names in ``server.api_workers`` call the same functions. So nothing is answered here that would be answered
otherwise there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hypevolve import messages
from hypevolve.messages import PREFIX
from server import api_workers, problems
from server.caller import acting
from server.coordinator import Coordinator
from server.errors import CoordinatorError


class Express:
    """Middleware behind the gate: the caller is known, the body measured."""

    def __init__(self, app: ASGIApp, coordinator: Coordinator, root_path: str) -> None:
        self._app = app
        self._coordinator = coordinator
        self._prefix = root_path.rstrip("/") + PREFIX

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(scope)
        if answer is None:
            await self._app(scope, receive, send)
            return
        message = await receive()
        try:
            response = await answer(message.get("body", b""), Request(scope, receive))
        except CoordinatorError as error:
            response = problems.answer(scope["path"], error)
        except ValidationError:  # FastAPI's words for what is wrong are those of every other route
            await self._app(scope, _again(message, receive), send)
            return
        await response(scope, receive, send)

    def _answer(self, scope: Scope) -> Callable[[bytes, Request], Awaitable[Response]] | None:
        """What answers this request; None where it has to go the long way."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            return None
        caller = acting.get()
        if "worker" not in caller.scopes or caller.campaigns is not None or not _is_json(scope):
            return None
        match scope["method"], scope["path"][len(self._prefix) :].split("/")[1:]:
            case "POST", ["leases"]:
                return self._ask
            case "PUT", ["leases", token] if token:
                return partial(self._heartbeat, token)
            case "PUT", ["candidates", number, "attempts", token, "result"] if token and _is_number(number):
                return partial(self._result, int(number), token)
        return None

    async def _ask(self, content: bytes, request: Request) -> Response:
        body = messages.Ask.model_validate_json(content)
        return await api_workers.give_work(self._coordinator, body, request.headers.get("prefer"), request.is_disconnected)

    async def _heartbeat(self, token: str, content: bytes, request: Request) -> Response:
        return _json(await api_workers.hear(self._coordinator, token, messages.Heartbeat.model_validate_json(content)))

    async def _result(self, candidate: int, token: str, content: bytes, request: Request) -> Response:
        body = messages.Result.model_validate_json(content)
        status, answer = await api_workers.take_result(self._coordinator, candidate, token, body)
        return _json(answer, status)


def _json(answer: messages.HeartbeatAnswer | messages.ResultAnswer, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18


def _is_json(scope: Scope) -> bool:
    return any(name == b"content-type" and value.startswith(b"application/json") for name, value in scope["headers"])


def _again(message: Message, receive: Receive) -> Receive:
    """``receive`` with a message put back in front."""
    left = [message]

    async def first() -> Message:
        return left.pop() if left else await receive()

    return first
