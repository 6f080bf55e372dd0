"""The one HTTP client: people, workers and tests speak to a coordinator through this file alone. Each route is a method."""

from __future__ import annotations

import base64
import hashlib
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import httpx
from pydantic import RootModel

from hypevolve import messages
from hypevolve.connection import Connection, error_of, part, read, retry_after
from hypevolve.errors import HypevolveError, Unreachable
from hypevolve.retrying import FOREVER, ONCE, PEOPLE, RetryPolicy

__all__ = ["FOREVER", "ONCE", "PEOPLE", "Client", "RetryPolicy"]

_PIECE = 1 << 20  # bytes of a checkpoint in memory at once


def _judged_by(weights: Mapping[str, float] | None) -> dict[str, str]:
    return {"fitness": ",".join(f"{metric}={weight!r}" for metric, weight in weights.items())} if weights else {}


class _Ranking(RootModel[list[messages.Candidate]]):
    pass


class Client(Connection):
    """The routes of one coordinator, safe to share between threads. See ``Connection`` for how requests are sent and repeated.

    Every method raises the errors of ``hypevolve.errors``: Unreachable once patience is over, NotFound, Conflict, Invalid,
    Denied or ServerFault as the coordinator answered.
    """

    # ---- workers -------------------------------------------------------------------------------------------------------------

    def register(self, worker: messages.RegisterWorker) -> messages.Registered:
        return read(self._send("POST", "/workers", body=worker), messages.Registered)

    def ask(
        self, ask: messages.Ask, wait_s: float = 0, heed: Callable[[messages.AskCommand, str, float], None] | None = None
    ) -> list[messages.Lease]:
        """Leases, or [] once the coordinator has had nothing for ``wait_s`` seconds (a long poll).

        ``heed(command, reason, seconds)`` is called, without waiting, where the coordinator wants something else of the worker:
        to end (``drain``), or to pass its self-test after so many seconds.
        """
        asked_at = self._clock()
        headers = {"Prefer": f"wait={math.ceil(wait_s)}"} if wait_s else {}
        response = self._send("POST", "/leases", body=ask, headers=headers, timeout_s=self._timeout_s + wait_s)
        if response.status_code != 204:
            return read(response, messages.Leases).leases
        command = response.headers.get(messages.COMMAND_HEADER)
        if heed is not None and command in get_args(messages.AskCommand):
            heed(command, response.headers.get(messages.REASON_HEADER, "no reason given"), retry_after(response))
            return []
        rest = wait_s - (self._clock() - asked_at)
        if rest > 0:  # a coordinator or proxy that does not hold the request open must not be asked in a tight loop
            self._sleep(min(rest, retry_after(response) or 1.0))
        return []

    def heartbeat(self, token: str, beat: messages.Heartbeat, deadline_s: float = 5.0) -> messages.HeartbeatAnswer:
        """One sign of life, given up after ``deadline_s`` whatever this client's policy: the next one is worth more."""
        response = self._send("PUT", f"/leases/{part(token)}", body=beat, deadline_s=deadline_s)
        return read(response, messages.HeartbeatAnswer)

    def post_epochs(self, token: str, epochs: messages.Epochs) -> messages.EpochsAnswer:
        return read(self._send("POST", f"/leases/{part(token)}/epochs", body=epochs), messages.EpochsAnswer)

    def put_result(self, candidate: int, token: str, result: messages.Result) -> messages.ResultAnswer:
        path = f"/candidates/{candidate}/attempts/{part(token)}/result"
        return read(self._send("PUT", path, body=result), messages.ResultAnswer)

    def post_failure(self, token: str, failure: messages.Failure) -> messages.FailureAnswer:
        return read(self._send("POST", f"/leases/{part(token)}/failure", body=failure), messages.FailureAnswer)

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
                f"{self.url}{messages.PREFIX}/leases/{part(token)}/checkpoint",
                params={"epoch": epoch},
                content=iter(lambda: file.read(_PIECE), b""),
                headers=headers,
                timeout=self._timeout_s,
            )
            answer, _ = self._attempt(request)
        if isinstance(answer, HypevolveError):
            raise answer
        return read(answer, messages.Checkpoint)

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
                    raise error_of(response, self.url)
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
        self._send("DELETE", f"/leases/{part(token)}", params={"reason": reason})

    # ---- people --------------------------------------------------------------------------------------------------------------

    def create_campaign(self, document: Mapping[str, Any] | str) -> messages.Campaign:
        """Create a campaign from a document, or from the text of a campaign file. The same document again changes nothing."""
        sent: dict[str, Any] = {"body": document}
        if isinstance(document, str):
            sent = {"content": document.encode(), "headers": {"Content-Type": "application/yaml"}}
        return read(self._send("POST", "/campaigns", **sent), messages.Campaign)

    def campaigns(self) -> Iterator[messages.Campaign]:
        """Every campaign, the newest first, page by page as they are read."""
        cursor: str | None = None
        while True:
            page = read(self._send("GET", "/campaigns", params={"cursor": cursor} if cursor else {}), messages.CampaignList)
            yield from page.items
            if page.next is None:
                return
            cursor = page.next

    def campaign(self, name: str) -> messages.Campaign:
        return read(self._send("GET", f"/campaigns/{part(name)}"), messages.Campaign)

    def change_campaign(self, name: str, **changes: Any) -> messages.Campaign:
        """Change the budget or the place of a campaign: the keys of ``messages.ChangeCampaign``, None takes a limit away."""
        return read(self._send("PATCH", f"/campaigns/{part(name)}", body=changes), messages.Campaign)

    def steer(self, name: str, verb: Literal["pause", "resume", "drain"]) -> messages.Campaign:
        return read(self._send("POST", f"/campaigns/{part(name)}/{verb}"), messages.Campaign)

    def cancel(self, name: str) -> int:
        """End a campaign for good; how many candidates were cancelled."""
        return read(self._send("POST", f"/campaigns/{part(name)}/cancel"), messages.Cancelled).cancelled

    def steer_candidate(self, name: str, number: int, verb: Literal["cancel", "retry"]) -> messages.Candidate:
        path = f"/campaigns/{part(name)}/candidates/{number}/{verb}"
        return read(self._send("POST", path), messages.Candidate)

    def drain_worker(self, name: str) -> int:
        """Ask the workers of a name to finish what they train and end; how many processes."""
        return read(self._send("POST", f"/workers/{part(name)}/drain"), messages.Drained).processes

    def change_space(self, name: str, space: Mapping[str, Any]) -> messages.Campaign:
        """Breed within other bounds from the next candidate on."""
        return read(self._send("PATCH", f"/campaigns/{part(name)}/space", body={"space": dict(space)}), messages.Campaign)

    def change_fitness(self, name: str, weights: Mapping[str, float]) -> messages.Campaign:
        """Judge every result of a campaign by other weights, those to come too."""
        return read(self._send("PUT", f"/campaigns/{part(name)}/fitness", body={"weights": dict(weights)}), messages.Campaign)

    def enqueue(self, name: str, hyps: Sequence[Mapping[str, Any]]) -> list[int]:
        """Train hyp sets of one's own next, within the budget; their numbers."""
        body = messages.Enqueue(request_id=uuid.uuid4(), hyps=[dict(hyp) for hyp in hyps])
        return read(self._send("POST", f"/campaigns/{part(name)}/candidates", body=body), messages.Enqueued).numbers

    def confirm(self, name: str, best: int, repeats: int) -> messages.Confirmations:
        """Train the best hyp sets again with fresh seeds until each has so many repeats; queues what lacks."""
        body = messages.Confirm(best=best, repeats=repeats)
        return read(self._send("POST", f"/campaigns/{part(name)}/confirm", body=body), messages.Confirmations)

    def import_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> messages.Imported:
        """Add earlier results (``{hyp, metrics}`` each) as parents, outside the budget; any number, and again at will."""
        imported = known = 0
        for start in range(0, len(rows), messages.MOST_IMPORTED):
            body = {"rows": list(rows[start : start + messages.MOST_IMPORTED])}
            answer = read(self._send("POST", f"/campaigns/{part(name)}/imported", body=body), messages.Imported)
            imported, known = imported + answer.imported, known + answer.known
        return messages.Imported(imported=imported, known=known)

    def retry(self, name: str) -> int:
        """Offer every failed candidate of a campaign again; how many there are."""
        return read(self._send("POST", f"/campaigns/{part(name)}/retry"), messages.Retried).retried

    def candidates(
        self, name: str, state: messages.State | None = None, limit: int | None = 200
    ) -> Iterator[messages.Candidate]:
        """The candidates of a campaign, page by page as they are read; ``limit`` of them at most, None for all."""
        params: dict[str, Any] = {"state": state} if state else {}
        left = limit
        while left is None or left > 0:
            params["limit"] = 200 if left is None else min(left, 200)
            page = read(self._send("GET", f"/campaigns/{part(name)}/candidates", params=params), messages.CandidatePage)
            yield from page.items if left is None else page.items[:left]
            if page.next is None or not page.items:
                return
            params["cursor"] = page.next
            left = None if left is None else left - len(page.items)

    def candidate(self, name: str, number: int) -> messages.Candidate:
        return read(self._send("GET", f"/campaigns/{part(name)}/candidates/{number}"), messages.Candidate)

    def audit(self, name: str) -> Iterator[messages.Audited]:
        """Every bred candidate bred again from the rows that it was bred from, and compared."""
        after: int | None = -1
        while after is not None:
            page = read(self._send("GET", f"/campaigns/{part(name)}/audit", params={"after": after}), messages.AuditPage)
            yield from page.items
            after = page.next

    def epochs(self, name: str, number: int) -> messages.EpochCurve:
        return read(self._send("GET", f"/campaigns/{part(name)}/candidates/{number}/epochs"), messages.EpochCurve)

    def best(self, name: str, n: int = 1, weights: Mapping[str, float] | None = None) -> list[messages.Candidate]:
        """The ``n`` best candidates, best first; by other ``weights`` than the campaign's, if any."""
        return read(self._send("GET", f"/campaigns/{part(name)}/best", params={"n": n, **_judged_by(weights)}), _Ranking).root

    def insight(self, name: str, weights: Mapping[str, float] | None = None) -> messages.Insight:
        """What a campaign has learned; by other ``weights`` than its own, if any."""
        return read(self._send("GET", f"/campaigns/{part(name)}/insight", params=_judged_by(weights)), messages.Insight)

    def text(self, name: str, file: str, weights: Mapping[str, float] | None = None) -> str:
        """A text file of a campaign: ``hyp_evolved.yaml``, ``evolve.csv``, ``evolve.txt``; by other ``weights``, if any."""
        return self._file(name, file, weights).text

    def binary(self, name: str, file: str, weights: Mapping[str, float] | None = None) -> bytes:
        """A binary file of a campaign: ``evolve.png``; by other ``weights``, if any."""
        return self._file(name, file, weights).content

    def _file(self, name: str, file: str, weights: Mapping[str, float] | None) -> httpx.Response:
        path, headers = f"/campaigns/{part(name)}/{part(file)}", {"Accept": "*/*"}
        return self._send("GET", path, params=_judged_by(weights), headers=headers)

    def workers(self) -> list[messages.Worker]:
        return read(self._send("GET", "/workers"), messages.WorkerList).items

    # ---- access --------------------------------------------------------------------------------------------------------------

    def create_token(self, token: messages.CreateToken) -> messages.NewToken:
        """Make an access token. An answer that is lost makes a second try say Conflict: revoke that name and take another."""
        return read(self._send("POST", "/tokens", body=token), messages.NewToken)

    def tokens(self) -> list[messages.Token]:
        return read(self._send("GET", "/tokens"), messages.TokenList).items

    def revoke_token(self, name: str) -> messages.Token:
        return read(self._send("DELETE", f"/tokens/{part(name)}"), messages.Token)

    def events(self, campaign: str | None = None, *, after: str = "0-0", limit: int | None = None) -> Iterator[messages.Event]:
        """The events of a campaign, or of the service itself, the oldest first, page by page as they are read."""
        path = "/events" if campaign is None else f"/campaigns/{part(campaign)}/events"
        left = limit
        while left is None or left > 0:
            params = {"after": after, "limit": 1000 if left is None else min(left, 1000)}
            page = read(self._send("GET", path, params=params), messages.EventPage)
            yield from page.items
            if not page.items:
                return
            after = page.next
            left = None if left is None else left - len(page.items)

    def follow(self, campaign: str, *, after: str = "0-0") -> Iterator[messages.Event]:
        """The events of a campaign as they happen, from a place on; ends only with the caller, or once patience is over."""
        url, attempt, silent_since = f"{self.url}{messages.PREFIX}/campaigns/{part(campaign)}/events/stream", 0, self._clock()
        while True:
            error = Unreachable(f"the coordinator at {self.url} ended the stream")
            try:
                headers = {"Accept": "text/event-stream", "Last-Event-ID": after}
                with self._http.stream("GET", url, headers=headers, timeout=self._timeout_s) as response:
                    if not response.is_success:
                        response.read()
                        raise error_of(response, self.url)
                    for line in response.iter_lines():
                        attempt, silent_since = 0, self._clock()
                        field, _, value = line.partition(": ")
                        if field == "id":
                            place = value
                        elif field == "data":
                            yield messages.Event.model_validate_json(value)
                            after = place
            except Unreachable as failure:
                error = failure
            except httpx.RequestError as failure:
                error = Unreachable(f"no events from {self.url} ({str(failure) or type(failure).__name__})")
            pause = self._retry.pause(attempt, self._chance())
            patience_s = self._retry.patience_s
            if self._stop.is_set() or (patience_s is not None and self._clock() - silent_since + pause > patience_s):
                raise error
            self._waiting(str(error))
            self._sleep(pause)
            attempt += 1

    def ready(self) -> bool:
        """Whether the coordinator can serve now. Never raises for a coordinator that cannot."""
        try:
            return self._http.get(f"{self.url}/readyz", timeout=min(self._timeout_s, 5.0)).status_code == 200
        except httpx.RequestError:
            return False
