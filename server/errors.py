"""The errors of the coordinator, each with its HTTP status.

CoordinatorError
├── NotFound      404  no such campaign, candidate or token
├── Conflict      409  the state of things forbids it: another document under this name, a superseded lease, other hashes
├── TooLarge      413  more than this coordinator takes
├── Invalid       422  the request itself is wrong
└── Unavailable   503  the database cannot answer now; the same request may be repeated
"""

from __future__ import annotations

from collections.abc import Sequence

from hypevolve.messages import ErrorItem


class CoordinatorError(Exception):
    """``kind`` is a stable word for programs, the message one sentence for people."""

    status = 500

    def __init__(self, kind: str, detail: str, errors: Sequence[ErrorItem] = ()) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = list(errors)


class NotFound(CoordinatorError):
    status = 404


class Conflict(CoordinatorError):
    status = 409


class TooLarge(CoordinatorError):
    status = 413


class Invalid(CoordinatorError):
    status = 422


class Unavailable(CoordinatorError):
    status = 503
