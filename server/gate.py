"""What stands before every route: who sends this, and is it within the limits. Nothing of a request is parsed before that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hypevolve.messages import PREFIX
from server import limits, problems
from server.access import SAFE, Door
from server.caller import NOBODY, speaking_for
from server.errors import CoordinatorError, TooMany, TooSlow, Unauthorised

OPEN = frozenset({"/healthz", "/readyz", "/login", "/logout", f"{PREFIX}/openapi.json"})
NOT_LIMITED = ("loopback", "anyone")
LONG = 64 * 1024  # bytes that are looked through in a thread


class Gate:
    """Middleware that knows the caller (``server.caller.acting``) and has measured the body before it lets a request in."""

    def __init__(self, app: ASGIApp, door: Door, root_path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._door = door
        self._root_path = root_path.rstrip("/")
        self._clock = clock
        self._rates = limits.Buckets(per_s=limits.REQUESTS_PER_S, burst=limits.BURST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"].removeprefix(self._root_path), Headers(scope=scope)
        most = limits.largest_body(scope["method"], path.removeprefix(PREFIX))
        try:
            limits.check_length(_announced(headers), most or 1 << 62)
            if path in OPEN or path.startswith("/static/"):
                who = NOBODY
            else:
                who = await self._door.caller(scope["method"], headers, (scope.get("client") or ("",))[0])
                self._hold_to_rate(who.name)
            if most is not None and scope["method"] not in SAFE:
                body = _Body(receive, most, json="yaml" not in headers.get("content-type", ""))
                await body.begin()
                receive = body.receive
        except CoordinatorError as error:
            await self._refusal(scope, path, headers, error)(scope, receive, send)
            return
        with speaking_for(who):
            await self._app(scope, receive, send)

    def _hold_to_rate(self, name: str) -> None:
        if name not in NOT_LIMITED and (wait := self._rates.take(name, self._clock())):
            raise TooMany(
                "too-many-requests",
                f"token '{name}' sends more than {limits.REQUESTS_PER_S:g} requests a second; go on in {wait} s",
                wait,
            )

    def _refusal(self, scope: Scope, path: str, headers: Headers, error: CoordinatorError) -> Response:
        """A person who is not logged in is shown the way; everybody else gets the problem."""
        person = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        if person and isinstance(error, Unauthorised) and error.kind != "loopback-only":
            query = scope["query_string"].decode("latin-1")
            back = quote(path + (f"?{query}" if query else ""), safe="")
            return RedirectResponse(f"{self._root_path}/login?next={back}", 303, {"Cache-Control": "no-store"})
        return problems.answer(scope["path"], error)


class _Body:
    """A body that is read and measured as a whole, before it is parsed."""

    def __init__(self, receive: Receive, most: int, *, json: bool) -> None:
        self._receive = receive
        self._most = most
        self._json = json
        self._whole: bytes | None = None

    async def begin(self) -> None:
        """Read it.

        Raises:
            TooLarge, TooSlow, Invalid: it is more than a body may be.
        """
        pieces, size = [], 0
        try:
            async with asyncio.timeout(limits.BODY_S):
                more = True
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        return
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    limits.check_length(size, self._most)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise TooSlow("too-slow", f"the body did not arrive within {limits.BODY_S:g} s; send it again") from None
        self._whole = b"".join(pieces)
        if self._json and size > LONG:
            await run_sync(limits.check_depth, self._whole)
        elif self._json:  # the YAML reader counts for itself
            limits.check_depth(self._whole)

    async def receive(self) -> Message:
        if self._whole is None:
            return await self._receive()
        body, self._whole = self._whole, None
        return {"type": "http.request", "body": body, "more_body": False}


def _announced(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() and len(length) < 19 else 0 if not length else 1 << 62
