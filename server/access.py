"""Who is let in: tokens, and the two ways to be let in without one.

Every replica asks the database again after ``FRESH_S``, so that a revoked token opens nothing for longer than that.

A new route names the scope it needs in its decorator: ``dependencies=[needs("read")]``. ``create_app`` refuses to start with a
route that names none.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Security
from fastapi.routing import iter_route_contexts
from fastapi.security import APIKeyCookie, HTTPBearer
from sqlalchemy import Connection, text

from hypevolve.messages import Scope
from server import tokens
from server.caller import ALL, Caller, acting, unknown_campaign
from server.coordinator import Coordinator, coordinator_of
from server.errors import Forbidden, NotFound, TooMany, Unauthorised
from server.limits import Buckets

OpenTo = Literal["loopback", "anyone", "nobody"]
COOKIE = "hypevolve"
FRESH_S = 3.0
MOST_KNOWN = 4096
REMEDY = "send one as `Authorization: Bearer hyp_…` (`hypevolve --token`, HYPEVOLVE_TOKEN), or log in at /login"
SAFE = ("GET", "HEAD", "OPTIONS")

BEARER = HTTPBearer(
    auto_error=False, bearerFormat="hyp_ID_SECRET", description="An access token, made by `hypevolve token create`"
)
IN_COOKIE = APIKeyCookie(name=COOKIE, auto_error=False, description="The same token, kept by the browser after /login")


class Door:
    """Turns a request into its caller.

    Args:
        open_to: who may come without a token. ``loopback``: this machine, while no token was ever made; ``anyone``: everybody.
    """

    def __init__(self, coordinator: Coordinator, open_to: OpenTo, clock: Callable[[], float] = time.monotonic) -> None:
        self._coordinator = coordinator
        self._open_to = open_to
        self._clock = clock
        self._known: dict[str, tuple[float, asyncio.Future[Caller | None]]] = {}
        self._made: tuple[float, asyncio.Future[bool] | None] = (float("-inf"), None)
        self._strangers = Buckets(per_s=1.0, burst=20)

    async def caller(self, method: str, headers: Mapping[str, str], address: str) -> Caller:
        """Who sends a request.

        Raises:
            Unauthorised: no token where one is needed, or one that is not valid.
            Forbidden: a page of another site speaks for a browser of ours.
            TooMany: this address has tried too many wrong tokens.
            Unavailable: the database cannot say.
        """
        secret, by_cookie = _presented(headers)
        caller = None if secret is None else await self._of_token(secret, address)
        if caller is None:
            caller = await self._without_token(headers, address, wrong=secret is not None)
        if method not in SAFE:
            refuse_other_sites(headers, strict=by_cookie)
        return caller

    async def _without_token(self, headers: Mapping[str, str], address: str, *, wrong: bool) -> Caller:
        """Where no token is needed a wrong one does no harm: it may be meant for another coordinator."""
        if self._open_to == "anyone":
            return Caller("anyone", ALL)
        if self._open_to == "nobody" or await self._any_made():
            if wrong:
                self._strangers.take(address, self._clock())
                raise Unauthorised("wrong-token", f"this access token is unknown, revoked or expired; {REMEDY}")
            raise Unauthorised("no-token", f"this coordinator wants an access token; {REMEDY}")
        asked = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if not (is_loopback(address) and is_loopback(asked)):
            raise Unauthorised(
                "loopback-only",
                "this coordinator has no access tokens yet, so it answers only to its own machine, at 127.0.0.1 or localhost; "
                "make a token with `hypevolve token create NAME --scope admin`",
            )
        return Caller("loopback", ALL)

    async def _of_token(self, secret: str, address: str) -> Caller | None:
        if tokens.PATTERN.fullmatch(secret) is None:  # nothing to look up, nor to remember
            return None
        now = self._clock()
        asked_at, answer = self._known.get(secret, (float("-inf"), None))
        if answer is None or now - asked_at > FRESH_S:
            # One stranger must not shut out those who were let in from the same address: a proxy, a cluster's way out.
            wait = 0 if _was_right(answer) else self._strangers.wait_s(address, now)
            if wait:
                raise TooMany("too-many-wrong-tokens", f"too many wrong tokens from this address; wait {wait} s", wait)
            if len(self._known) >= MOST_KNOWN:
                self._known = {key: kept for key, kept in self._known.items() if now - kept[0] <= FRESH_S}
            answer = asyncio.ensure_future(self._look_up(secret))
            self._known[secret] = (now, answer)
        try:
            return await asyncio.shield(answer)
        except BaseException:
            self._known.pop(secret, None)
            raise

    async def _look_up(self, secret: str) -> Caller | None:
        database = self._coordinator.database
        return await self._coordinator.essential(
            lambda: database.run(lambda connection: tokens.look_up(connection, secret), essential=True)
        )

    async def _any_made(self) -> bool:
        now = self._clock()
        asked_at, answer = self._made
        if answer is None or now - asked_at > FRESH_S:
            database = self._coordinator.database
            look = self._coordinator.essential(lambda: database.run(tokens.any_made, essential=True))
            answer = asyncio.ensure_future(look)  # one look for all who ask meanwhile
            self._made = (now, answer)
        try:
            return await asyncio.shield(answer)
        except BaseException:
            self._made = (float("-inf"), None)
            raise


def _was_right(answer: asyncio.Future[Caller | None] | None) -> bool:
    return (
        answer is not None
        and answer.done()
        and not answer.cancelled()
        and answer.exception() is None
        and answer.result() is not None
    )


def _presented(headers: Mapping[str, str]) -> tuple[str | None, bool]:
    """The token of a request, and whether a browser sent it by itself."""
    kind, _, secret = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return secret.strip(), False
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE and value:
            return value, True
    return None, False


def refuse_other_sites(headers: Mapping[str, str], *, strict: bool) -> None:
    """No page of another site may make a visitor's browser change anything; ``strict`` wants to be told that none does.

    Raises:
        Forbidden: one tries to.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None:
        ours = urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    else:
        ours = site in ("same-origin", "none") or (site is None and not strict)
    if not ours:
        raise Forbidden("cross-site", "a page of another site may not change anything here; use the coordinator's own page")


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def door_of(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


def needs(scope: Scope) -> Any:
    """The scope that a route needs, for its decorator.

    A token that is bound to campaigns is held to them by the path: ``{name}`` is a campaign, ``{token}`` a lease and
    ``{candidate}`` a candidate's id. What is none of its business looks as if it did not exist.
    """

    async def check(
        request: Request, _bearer: Annotated[Any, Security(BEARER)], _cookie: Annotated[Any, Security(IN_COOKIE)]
    ) -> None:
        caller = acting.get()
        if scope not in caller.scopes:
            held = ", ".join(sorted(caller.scopes))
            raise Forbidden("scope", f"this needs a token of scope {scope}; that of '{caller.name}' is {held}")
        if caller.campaigns is not None:
            await _hold_to_campaigns(request, caller)

    check.scope = scope  # type: ignore[attr-defined]
    return Security(check)


async def _hold_to_campaigns(request: Request, caller: Caller) -> None:
    path = request.path_params
    if "name" in path and not caller.may_see(path["name"]):
        raise unknown_campaign(path["name"], caller.only or [])
    if "token" in path and not await _belongs(request, _LEASE, path["token"], caller, unknown=True):
        raise NotFound("unknown-token", "this coordinator never issued that lease token; ask for a new lease")
    if "worker" in path:
        raise Forbidden("bound", "a worker may serve any campaign, so this needs a token that is bound to none")
    number = path.get("candidate", "0")  # what is no number is refused by the route itself
    if "candidate" in path and number.isdecimal() and not await _belongs(request, _CANDIDATE, number[:18], caller):
        raise NotFound("unknown-candidate", "no candidate has this id")


_LEASE = """
    select c.name from attempt a join candidate k on k.id = a.candidate_id join campaign c on c.id = k.campaign_id
    where a.token = :value
"""
_CANDIDATE = "select c.name from candidate k join campaign c on c.id = k.campaign_id where k.id = :value"


async def _belongs(request: Request, query: str, value: str, caller: Caller, *, unknown: bool = False) -> bool:
    """Whether what ``query`` finds is of a campaign of the caller's; ``unknown`` where it finds nothing.

    A lease that nobody knows is left to its route, which answers in the same words or, after a restore, hears it out.
    """

    def work(connection: Connection) -> str | None:
        return connection.execute(text(query), {"value": value}).scalar()

    coordinator = coordinator_of(request)
    campaign = await coordinator.essential(lambda: coordinator.database.run(work, essential=True))
    return unknown if campaign is None else caller.may_see(campaign)


class Address(NamedTuple):
    """A method and a path that the application answers, with the scope that it needs, None where it names none."""

    method: str
    path: str
    scope: Scope | None


def addresses(app: FastAPI) -> list[Address]:
    """Everything that the application answers, static files apart."""
    found = []
    for context in iter_route_contexts(app.routes):
        depends = getattr(context.original_route, "dependencies", [])
        scopes = [scope for d in depends if (scope := getattr(d.dependency, "scope", None)) is not None]
        for method in sorted(context.methods or ()):
            found.append(Address(method, str(context.path), scopes[0] if scopes else None))
    return found


def require_scopes(app: FastAPI, open_paths: frozenset[str]) -> None:
    """Hold every route to naming its scope, when the application is put together.

    Raises:
        RuntimeError: names the routes that do not.
    """
    bare = [f"{a.method} {a.path}" for a in addresses(app) if a.scope is None and a.path not in open_paths]
    if bare:
        raise RuntimeError(f"a route without a scope: {', '.join(bare)}; add dependencies=[needs(…)] to its decorator")
