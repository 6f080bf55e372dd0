"""How a training can end other than by metrics. All of these stay inside the worker; what crosses the network are messages."""

from __future__ import annotations

from hypevolve.messages import FailureKind


class TrainingFailed(Exception):
    """The training itself said no. ``kind`` is the protocol's word, the text is for people."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Interrupted(Exception):
    """Somebody outside ended the training (a SIGTERM to a whole group of processes): no judgement of the hyp set."""


class NotInstalled(Exception):
    """This node lacks what the trainer needs: never the candidate's fault. The text says what to do; ``reason`` is one word."""

    def __init__(self, detail: str, reason: str = "not_installed") -> None:
        super().__init__(detail)
        self.reason = reason


class Cancelled(BaseException):
    """Raised inside a training that was told to stop.

    Like KeyboardInterrupt it is no Exception, so that a trainer's ``except Exception`` cannot swallow it.
    """


class CannotWork(Exception):
    """The worker as a whole cannot go on. One line; ``exit_code`` is that of the process."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
