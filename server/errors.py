"""The errors of the coordinator, each with its HTTP status.

CoordinatorError
├── Unauthorised  401  no token, or one that is not valid
├── Forbidden     403  the token is valid, and this is not for it
├── NotFound      404  no such campaign, candidate or token
├── TooSlow       408  the request did not arrive in time
├── Conflict      409  the state of things forbids it: another document under this name, a superseded lease, other hashes
├── TooLarge      413  the request is larger than this route takes
├── Invalid       422  the request itself is wrong
├── TooOld        426  this worker speaks a protocol that is no longer served
├── TooMany       429  more requests than one caller may send
└── Unavailable   503  the database cannot answer now; the same request may be repeated
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from hypevolve.messages import ErrorItem


class CoordinatorError(Exception):
    """``kind`` is a stable word for programs, the message one sentence for people."""

    status = 500
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, kind: str, detail: str, errors: Sequence[ErrorItem] = ()) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = list(errors)


class Unauthorised(CoordinatorError):
    status = 401
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class Forbidden(CoordinatorError):
    status = 403


class NotFound(CoordinatorError):
    status = 404


class TooSlow(CoordinatorError):
    status = 408
    headers = MappingProxyType({"Connection": "close"})


class Conflict(CoordinatorError):
    status = 409


class TooLarge(CoordinatorError):
    status = 413
    headers = MappingProxyType({"Connection": "close"})


class Invalid(CoordinatorError):
    status = 422


class TooMany(CoordinatorError):
    """``retry_after_s`` is when the next request will be let through."""

    status = 429

    def __init__(self, kind: str, detail: str, retry_after_s: int) -> None:
        super().__init__(kind, detail)
        self.headers = {"Retry-After": str(retry_after_s)}


class TooOld(CoordinatorError):
    status = 426


class Unavailable(CoordinatorError):
    status = 503
    headers = MappingProxyType({"Retry-After": "1"})
