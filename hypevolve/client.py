"""The one HTTP client: people, workers and tests speak to a coordinator through this file alone.

The retry rule: 2xx ends a request; 4xx other than 429 ends it with an error; after 429, 5xx or no answer the *same* request is
sent again, for as long as the caller's ``RetryPolicy`` allows. Every request of the protocol may be repeated, so nothing here
asks whether a lost answer belonged to a request that was carried out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, RootModel, ValidationError

from hypevolve import messages
from hypevolve.errors import Conflict, Denied, HypevolveError, Invalid, NotFound, ServerFault, Unreachable
from hypevolve.retrying import FOREVER, ONCE, PEOPLE, RetryPolicy

_PIECE = 1 << 20  # bytes of a checkpoint in memory at once

__all__ = ["FOREVER", "ONCE", "PEOPLE", "Client", "RetryPolicy"]

Message = TypeVar("Message", bound=BaseModel)

_ERRORS: dict[int, type[HypevolveError]] = {
    400: Invalid, 401: Denied, 403: Denied, 404: NotFound, 409: Conflict, 410: Conflict, 413: Invalid, 415: Invalid,
    422: Invalid, 426: Conflict, 429: Unreachable, 502: Unreachable, 503: Unreachable, 504: Unreachable,
}  # fmt: skip


class _Ranking(RootModel[list[messages.Candidate]]):
    pass


class Client:
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

    # ---- workers -------------------------------------------------------------------------------------------------------------

    def register(self, worker: messages.RegisterWorker) -> messages.Registered:
        return _read(self._send("POST", "/workers", body=worker), messages.Registered)

    def ask(self, ask: messages.Ask, wait_s: float = 0) -> list[messages.Lease]:
        """Leases, or [] once the coordinator has had nothing for ``wait_s`` seconds (a long poll)."""
        asked_at = self._clock()
        headers = {"Prefer": f"wait={math.ceil(wait_s)}"} if wait_s else {}
        response = self._send("POST", "/leases", body=ask, headers=headers, timeout_s=self._timeout_s + wait_s)
        if response.status_code != 204:
            return _read(response, messages.Leases).leases
        rest = wait_s - (self._clock() - asked_at)
        if rest > 0:  # a coordinator or proxy that does not hold the request open must not be asked in a tight loop
            self._sleep(min(rest, _retry_after(response) or 1.0))
        return []

    def heartbeat(self, token: str, beat: messages.Heartbeat, deadline_s: float = 5.0) -> messages.HeartbeatAnswer:
        """One sign of life, given up after ``deadline_s`` whatever this client's policy: the next one is worth more."""
        response = self._send("PUT", f"/leases/{_part(token)}", body=beat, deadline_s=deadline_s)
        return _read(response, messages.HeartbeatAnswer)

    def post_epochs(self, token: str, epochs: messages.Epochs) -> messages.EpochsAnswer:
        return _read(self._send("POST", f"/leases/{_part(token)}/epochs", body=epochs), messages.EpochsAnswer)

    def put_result(self, candidate: int, token: str, result: messages.Result) -> messages.ResultAnswer:
        path = f"/candidates/{candidate}/attempts/{_part(token)}/result"
        return _read(self._send("PUT", path, body=result), messages.ResultAnswer)

    def post_failure(self, token: str, failure: messages.Failure) -> messages.FailureAnswer:
        return _read(self._send("POST", f"/leases/{_part(token)}/failure", body=failure), messages.FailureAnswer)

    def put_checkpoint(self, token: str, path: Path, epoch: int) -> messages.Checkpoint:
        """Store the checkpoint in ``path``, ``epoch`` epochs done. Tried once: the next one is worth more.

        Raises:
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            headers = {"Repr-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:", "Content-Length": str(size)}
            request = self._http.build_request(
                "PUT",
                f"{self.url}{messages.PREFIX}/leases/{_part(token)}/checkpoint",
                params={"epoch": epoch},
                content=iter(lambda: file.read(_PIECE), b""),
                headers=headers,
                timeout=self._timeout_s,
            )
            answer, _ = self._attempt(request)
        if isinstance(answer, HypevolveError):
            raise answer
        return _read(answer, messages.Checkpoint)

    def get_checkpoint(self, candidate: int, sha256: str, path: Path) -> None:
        """Bring a candidate's checkpoint to ``path``: whole, with this hash, or not at all. Tried once.

        Raises:
            Unreachable: it did not arrive as it was stored; it may be asked for again.
            OSError: the file cannot be written.
        """
        url = f"{self.url}{messages.PREFIX}/candidates/{candidate}/checkpoint"
        partial = path.with_name(f".{path.name}.partial")
        digest = hashlib.sha256()
        try:
            with self._http.stream("GET", url, headers={"Accept": "*/*"}, timeout=self._timeout_s) as response:
                if not response.is_success:
                    response.read()
                    raise _error(response, self.url)
                with partial.open("wb") as file:
                    for piece in response.iter_bytes(_PIECE):
                        digest.update(piece)
                        file.write(piece)
        except httpx.RequestError as failure:
            raise Unreachable(f"no checkpoint from {self.url} ({str(failure) or type(failure).__name__})") from failure
        if digest.hexdigest() != sha256:
            raise Unreachable(f"the checkpoint from {self.url} is not the one that was stored; it was cut off or replaced")
        partial.replace(path)

    def release(self, token: str, reason: str) -> None:
        self._send("DELETE", f"/leases/{_part(token)}", params={"reason": reason})

    # ---- people --------------------------------------------------------------------------------------------------------------

    def create_campaign(self, document: Mapping[str, Any] | str) -> messages.Campaign:
        """Create a campaign from a document, or from the text of a campaign file. The same document again changes nothing."""
        sent: dict[str, Any] = {"body": document}
        if isinstance(document, str):
            sent = {"content": document.encode(), "headers": {"Content-Type": "application/yaml"}}
        return _read(self._send("POST", "/campaigns", **sent), messages.Campaign)

    def campaigns(self) -> list[messages.Campaign]:
        return _read(self._send("GET", "/campaigns"), messages.CampaignList).items

    def campaign(self, name: str) -> messages.Campaign:
        return _read(self._send("GET", f"/campaigns/{_part(name)}"), messages.Campaign)

    def change_campaign(self, name: str, **changes: Any) -> messages.Campaign:
        """Change the budget or the place of a campaign: the keys of ``messages.ChangeCampaign``, None takes a limit away."""
        return _read(self._send("PATCH", f"/campaigns/{_part(name)}", body=changes), messages.Campaign)

    def steer(self, name: str, verb: Literal["pause", "resume", "drain"]) -> messages.Campaign:
        return _read(self._send("POST", f"/campaigns/{_part(name)}/{verb}"), messages.Campaign)

    def cancel(self, name: str) -> int:
        """End a campaign for good; how many candidates were cancelled."""
        return _read(self._send("POST", f"/campaigns/{_part(name)}/cancel"), messages.Cancelled).cancelled

    def steer_candidate(self, name: str, number: int, verb: Literal["cancel", "retry"]) -> messages.Candidate:
        path = f"/campaigns/{_part(name)}/candidates/{number}/{verb}"
        return _read(self._send("POST", path), messages.Candidate)

    def drain_worker(self, name: str) -> int:
        """Ask the workers of a name to finish what they train and end; how many processes."""
        return _read(self._send("POST", f"/workers/{_part(name)}/drain"), messages.Drained).processes

    def retry(self, name: str) -> int:
        """Offer every failed candidate of a campaign again; how many there are."""
        return _read(self._send("POST", f"/campaigns/{_part(name)}/retry"), messages.Retried).retried

    def candidates(
        self, name: str, state: messages.State | None = None, limit: int | None = 200
    ) -> Iterator[messages.Candidate]:
        """The candidates of a campaign, page by page as they are read; ``limit`` of them at most, None for all."""
        params: dict[str, Any] = {"state": state} if state else {}
        left = limit
        while left is None or left > 0:
            params["limit"] = 200 if left is None else min(left, 200)
            page = _read(self._send("GET", f"/campaigns/{_part(name)}/candidates", params=params), messages.CandidatePage)
            yield from page.items if left is None else page.items[:left]
            if page.next is None or not page.items:
                return
            params["cursor"] = page.next
            left = None if left is None else left - len(page.items)

    def candidate(self, name: str, number: int) -> messages.Candidate:
        return _read(self._send("GET", f"/campaigns/{_part(name)}/candidates/{number}"), messages.Candidate)

    def epochs(self, name: str, number: int) -> messages.EpochCurve:
        return _read(self._send("GET", f"/campaigns/{_part(name)}/candidates/{number}/epochs"), messages.EpochCurve)

    def best(self, name: str, n: int = 1) -> list[messages.Candidate]:
        """The ``n`` best candidates, best first."""
        return _read(self._send("GET", f"/campaigns/{_part(name)}/best", params={"n": n}), _Ranking).root

    def insight(self, name: str) -> messages.Insight:
        """What a campaign has learned."""
        return _read(self._send("GET", f"/campaigns/{_part(name)}/insight"), messages.Insight)

    def text(self, name: str, file: str) -> str:
        """A text file of a campaign: ``hyp_evolved.yaml``, ``evolve.csv``, ``evolve.txt``."""
        return self._send("GET", f"/campaigns/{_part(name)}/{_part(file)}", headers={"Accept": "*/*"}).text

    def binary(self, name: str, file: str) -> bytes:
        """A binary file of a campaign: ``evolve.png``."""
        return self._send("GET", f"/campaigns/{_part(name)}/{_part(file)}", headers={"Accept": "*/*"}).content

    def workers(self) -> list[messages.Worker]:
        return _read(self._send("GET", "/workers"), messages.WorkerList).items

    # ---- access --------------------------------------------------------------------------------------------------------------

    def create_token(self, token: messages.CreateToken) -> messages.NewToken:
        """Make an access token. An answer that is lost makes a second try say Conflict: revoke that name and take another."""
        return _read(self._send("POST", "/tokens", body=token), messages.NewToken)

    def tokens(self) -> list[messages.Token]:
        return _read(self._send("GET", "/tokens"), messages.TokenList).items

    def revoke_token(self, name: str) -> messages.Token:
        return _read(self._send("DELETE", f"/tokens/{_part(name)}"), messages.Token)

    def events(self, campaign: str | None = None, *, after: str = "0-0", limit: int | None = None) -> Iterator[messages.Event]:
        """The events of a campaign, or of the service itself, the oldest first, page by page as they are read."""
        path = "/events" if campaign is None else f"/campaigns/{_part(campaign)}/events"
        left = limit
        while left is None or left > 0:
            params = {"after": after, "limit": 1000 if left is None else min(left, 1000)}
            page = _read(self._send("GET", path, params=params), messages.EventPage)
            yield from page.items
            if not page.items:
                return
            after = page.next
            left = None if left is None else left - len(page.items)

    def ready(self) -> bool:
        """Whether the coordinator can serve now. Never raises for a coordinator that cannot."""
        try:
            return self._http.get(f"{self.url}/readyz", timeout=min(self._timeout_s, 5.0)).status_code == 200
        except httpx.RequestError:
            return False

    # ---- one request ---------------------------------------------------------------------------------------------------------

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
            content = _strict_json(body)
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
        error = _error(response, self.url)
        if response.status_code == 429 or response.status_code >= 500:
            return error, _retry_after(response)
        raise error


def _part(text: str) -> str:
    return quote(text, safe="")


def _strict_json(body: BaseModel | Mapping[str, Any]) -> bytes:
    """JSON without NaN.

    Raises:
        Invalid: a number is not finite.
    """
    value = body.model_dump(mode="json") if isinstance(body, BaseModel) else dict(body)
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError) as error:
        raise Invalid(f"the request cannot be written as JSON: {error}") from error


def _read(response: httpx.Response, model: type[Message]) -> Message:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise ServerFault(
            f"{response.request.url} answered {response.status_code}, but not as a coordinator does ({place}: {first['msg']}); "
            "is this the coordinator's URL, and is this client as new as the coordinator?"
        ) from error


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(float(response.headers.get("Retry-After", "0")), 0.0)
    except ValueError:  # a date: no instant of another machine is compared with our clock
        return 0.0


def _error(response: httpx.Response, url: str) -> HypevolveError:
    status = response.status_code
    kind = _ERRORS.get(status, ServerFault)
    try:
        problem = messages.Problem.model_validate_json(response.content)
    except ValidationError:
        reason = response.reason_phrase or "no reason given"
        return kind(f"{url} answered {status} {reason} to {response.request.method} {response.request.url.path}")
    parts = [problem.detail or problem.title]
    parts += [f"{item.key}: {item.message}" + (f" ({item.remedy})" if item.remedy else "") for item in problem.errors]
    return kind("; ".join(parts), problem)
