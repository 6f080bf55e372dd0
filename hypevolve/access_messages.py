"""The messages about access tokens and events; ``hypevolve.messages`` has them too."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hypevolve.shapes import Answer, Name, Request

Scope = Literal["read", "worker", "operator", "admin"]
RESERVED = ("loopback", "anyone", "nobody", "coordinator")  # who acts without a token, in events


class CreateToken(Request):
    """A new access token. ``campaigns`` binds it to those names; ``expires_s`` ends it by itself."""

    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)]
    campaigns: Annotated[list[Name], Field(min_length=1, max_length=64)] | None = None
    expires_s: Annotated[float, Field(gt=0, le=3.2e9)] | None = None

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"'{name}' stands in events for callers without a token; choose another name")
        return name

    @model_validator(mode="after")
    def _unbound_admin(self) -> CreateToken:
        if self.campaigns is not None and "admin" in self.scopes:
            raise ValueError("a token of scope admin makes tokens and cannot be bound to campaigns; leave one of the two out")
        return self


class Token(Answer):
    """What is known of an access token; the token itself is not."""

    name: str
    scopes: list[Scope]
    campaigns: list[str] | None
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    valid: bool


class NewToken(Token):
    """``token`` is shown in this answer and never again. From the ``first`` one on every request needs a token."""

    token: str = Field(repr=False)
    first: bool = False


class TokenList(Answer):
    items: list[Token]


class Event(Answer):
    """One change: what happened to which candidate of which campaign, and who made it.

    ``who`` is the name of an access token, ``loopback`` or ``anyone`` without one, ``coordinator`` for what the service does by
    itself, or the database's role for what was changed past it.
    """

    id: int
    campaign: str | None
    number: int | None
    kind: str
    who: str
    detail: dict[str, Any]
    at: datetime


class EventPage(Answer):
    """Events in their final order; ``after`` of the next request is ``next``, also where there is nothing new yet."""

    items: list[Event]
    next: str
