"""One request to a coordinator: sent, repeated as the retry rule says, and its answer or error read.

The retry rule: 2xx ends a request; 4xx other than 408 and 429 ends it with an error; after those, 5xx or no answer the *same*
request is sent again, for as long as the caller's ``RetryPolicy`` allows. Every request of the protocol may be repeated, so
nothing here asks whether a lost answer belonged to a request that was carried out.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from hypevolve import messages
from hypevolve.errors import Conflict, Denied, HypevolveError, Invalid, NotFound, ServerFault, Unreachable
from hypevolve.retrying import PEOPLE, RetryPolicy

Message = TypeVar("Message", bound=BaseModel)

_ERRORS: dict[int, type[HypevolveError]] = {
    400: Invalid, 401: Denied, 403: Denied, 404: NotFound, 408: Unreachable, 409: Conflict, 410: Conflict, 413: Invalid,
    415: Invalid, 422: Invalid, 426: Conflict, 429: Unreachable, 502: Unreachable, 503: Unreachable, 504: Unreachable,
}  # fmt: skip


class Connection:
    """A connection to one coordinator, safe to share between threads.

    ``token`` is the access token, where the coordinator wants one. ``stop`` interrupts every pause between attempts.
    ``transport``, ``chance``, ``sleep`` and ``clock`` are for tests and simulations. ``waiting`` is told, in one line, why
    a request is about to be repeated.

    Every method raises the errors of ``hypevolve.errors``: Unreachable once patience is over, NotFound, Conflict, Invalid,
    Denied or ServerFault as the coordinator answered.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = 30.0,
        retry: RetryPolicy = PEOPLE,
        stop: threading.Event | None = None,
        waiting: Callable[[str], None] | None = None,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connects only when first used.

        Raises:
            Invalid: the URL is none.
        """
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise Invalid(f"'{url}' is no URL of a coordinator; write it like http://host:8080")
        self._timeout_s = timeout_s
        self._retry = retry
        self._stop = stop or threading.Event()
        self._waiting = waiting or (lambda _reason: None)
        self._chance = chance
        self._sleep = sleep or self._stop.wait
        self._clock = clock
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._http = httpx.Client(transport=transport, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | Mapping[str, Any] | None = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        deadline_s: float | None = None,
    ) -> httpx.Response:
        """A 2xx answer. Patience limits how often a request is repeated; a deadline cuts off the attempt in flight as well."""
        headers = dict(headers or {})
        if body is not None:
            content = strict_json(body)
            headers["Content-Type"] = "application/json"
        # Built once: a repetition is the same request, byte for byte.
        request = self._http.build_request(
            method, self.url + messages.PREFIX + path, content=content, params=params, headers=headers
        )
        patience_s = self._retry.patience_s if deadline_s is None else deadline_s
        timeout_s = timeout_s or self._timeout_s
        began = self._clock()
        attempt = 0
        while True:
            within = timeout_s if deadline_s is None else min(timeout_s, max(deadline_s - (self._clock() - began), 0.05))
            request.extensions["timeout"] = httpx.Timeout(within, connect=min(within, 10.0)).as_dict()
            error, floor_s = self._attempt(request)
            if isinstance(error, httpx.Response):
                return error
            pause = self._retry.pause(attempt, self._chance(), floor_s)
            over = patience_s is not None and self._clock() - began + pause > patience_s
            if over or self._stop.is_set():
                raise error
            self._waiting(str(error))
            self._sleep(pause)
            attempt += 1

    def _attempt(self, request: httpx.Request) -> tuple[httpx.Response | HypevolveError, float]:
        """The answer, or an error after which the request may be repeated, with the least pause before that."""
        try:
            response = self._http.send(request)
        except httpx.RequestError as failure:
            reason = str(failure) or type(failure).__name__
            remedy = "is it running, and is the URL right?"
            return Unreachable(f"no answer from the coordinator at {self.url} ({reason}); {remedy}"), 0.0
        if response.is_success:
            return response, 0.0
        error = error_of(response, self.url)
        if response.status_code in (408, 429) or response.status_code >= 500:
            return error, retry_after(response)
        raise error


def part(text: str) -> str:
    return quote(text, safe="")


def strict_json(body: BaseModel | Mapping[str, Any]) -> bytes:
    """JSON without NaN.

    Raises:
        Invalid: a number is not finite.
    """
    value = body.model_dump(mode="json") if isinstance(body, BaseModel) else dict(body)
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError) as error:
        raise Invalid(f"the request cannot be written as JSON: {error}") from error


def read(response: httpx.Response, model: type[Message]) -> Message:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise ServerFault(
            f"{response.request.url} answered {response.status_code}, but not as a coordinator does ({place}: {first['msg']}); "
            "is this the coordinator's URL, and is this client as new as the coordinator?"
        ) from error


def retry_after(response: httpx.Response) -> float:
    try:
        return max(float(response.headers.get("Retry-After", "0")), 0.0)
    except ValueError:  # a date: no instant of another machine is compared with our clock
        return 0.0


def error_of(response: httpx.Response, url: str) -> HypevolveError:
    status = response.status_code
    kind = _ERRORS.get(status, ServerFault)
    try:
        problem = messages.Problem.model_validate_json(response.content)
    except ValidationError:
        reason = response.reason_phrase or "no reason given"
        return kind(f"{url} answered {status} {reason} to {response.request.method} {response.request.url.path}")
    parts = problem.detail.splitlines() or [problem.title]
    for item in problem.errors:
        fault = f"{item.key}: {item.message}"
        if fault not in problem.detail:  # that of an invalid campaign has a line for each fault
            parts.append(f"{fault} ({item.remedy})" if item.remedy else fault)
    return kind("; ".join(parts), problem)
