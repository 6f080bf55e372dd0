"""Who a request acts for, and what that one may do. Set by the gate for the time of a request, read wherever it matters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from hypevolve.messages import Scope
from server.errors import NotFound

# What a token of each scope may do. A worker's token reads nothing: it is on many machines, and need not.
INCLUDES: dict[Scope, frozenset[Scope]] = {
    "read": frozenset(["read"]),
    "worker": frozenset(["worker"]),
    "operator": frozenset(["read", "operator"]),
    "admin": frozenset(["read", "worker", "operator", "admin"]),
}
ALL = INCLUDES["admin"]


@dataclass(frozen=True)
class Caller:
    """``name`` is that of the token, or ``loopback``, ``anyone`` and ``coordinator`` where there is none.

    ``campaigns`` are the names that a token is bound to, None where it is not bound.
    """

    name: str
    scopes: frozenset[Scope]
    campaigns: frozenset[str] | None = None

    @property
    def only(self) -> list[str] | None:
        """``campaigns`` as a parameter of ``VISIBLE``."""
        return None if self.campaigns is None else sorted(self.campaigns)

    def may_see(self, campaign: str) -> bool:
        return self.campaigns is None or campaign in self.campaigns


NOBODY = Caller("nobody", frozenset())  # on the addresses that are open to everybody
COORDINATOR = Caller("coordinator", ALL)
acting: ContextVar[Caller] = ContextVar("acting", default=COORDINATOR)


@contextmanager
def speaking_for(caller: Caller) -> Iterator[None]:
    """What is written down meanwhile was done by ``caller``."""
    before = acting.set(caller)
    try:
        yield
    finally:
        acting.reset(before)


# Part of queries on a campaign c whose rows the caller may see; its parameters are ``visible()``.
VISIBLE = "(cast(:only as text[]) is null or c.name = any(cast(:only as text[])))"


def visible() -> dict[str, Any]:
    return {"only": acting.get().only}


def unknown_campaign(name: str, known: Sequence[str]) -> NotFound:
    """The same words whether a campaign does not exist or is none of the caller's business; ``known`` are some that are."""
    there = f"there are {', '.join(known)}" if known else "none has been created yet"
    return NotFound("unknown-campaign", f"no campaign is called '{name}'; {there}")
