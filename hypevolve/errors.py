"""What can go wrong between a client and the coordinator. The text of each error is one line that a person can act upon.

HypevolveError      exit code
├── ServerFault     1  the coordinator, or something in front of it, answered with an error of its own
├── NotFound        3  no such campaign, candidate, file or token
├── Conflict        4  the state of things forbids it
├── Invalid         5  the request is wrong; the problem lists where
├── Denied          6  not allowed
└── Unreachable     7  no answer within the caller's patience
"""

from __future__ import annotations

from hypevolve.messages import Problem


class HypevolveError(Exception):
    """Every error of the client. ``problem`` is the coordinator's own account, where it gave one."""

    exit_code = 1

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.problem = problem


class ServerFault(HypevolveError):
    """The coordinator answered with an error of its own, or with something that is no answer of a coordinator."""

    exit_code = 1


class NotFound(HypevolveError):
    """No such campaign, candidate, file or token."""

    exit_code = 3


class Conflict(HypevolveError):
    """The state of things forbids it: another document under this name, a lease that another worker holds by now."""

    exit_code = 4


class Invalid(HypevolveError):
    """The request is wrong; ``problem.errors`` lists each place with its remedy."""

    exit_code = 5


class Denied(HypevolveError):
    """Not allowed."""

    exit_code = 6


class Unreachable(HypevolveError):
    """No answer within the caller's patience. The same request may be repeated."""

    exit_code = 7
