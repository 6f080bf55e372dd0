"""Which answers the protocol permits at which moment, written from docs/PROTOCOL.md alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from benchmarks.chaos.history import CLOCK_S, History, Line


def illegal(history: History, line: Line) -> str | None:
    """Why the protocol does not permit this answer, or None. An absent answer is always permitted."""
    status = line.get("status")
    if status is None:
        return None
    if status in (429, 503):
        return None if line["problem"] and line["retry_after"] is not None else "no problem document with Retry-After"
    if status == 408:  # it did not arrive in time, on a machine that is busy enough
        return None if line["problem"] else "no problem document"
    if status >= 400 and not line["problem"]:
        return "no problem document"
    if line["do"] == "other":
        return None if status < 500 else "a mistake of the coordinator"
    if line["do"] in ("beat", "epochs", "result", "failure", "release") and line["token"] not in history.attempts:
        return "the token stands in no row"
    return _RULES[line["do"]](history, line)


def _register(_history: History, line: Line) -> str | None:
    return None if line["status"] == 200 else "not 200"


def _ask(history: History, line: Line) -> str | None:
    if line["status"] == 204:
        return None
    if line["status"] != 200 or not line.get("leases"):
        return "neither leases nor 204"
    unknown = [token for _, _, token in line["leases"] if token not in history.attempts]
    return f"token {unknown[0][:8]} stands in no row" if unknown else None


def _beat(history: History, line: Line) -> str | None:
    if line["status"] != 200:
        return "a known token must be answered"
    attempt = history.attempts[line["token"]]
    asked_at, told_at = line["at"]
    if line["current"]:
        newer = [row["token"] for row in history.later(line["token"]) if history.told.get(row["token"], told_at) < asked_at]
        if newer:
            return f"current, though {newer[0][:8]} had been leased to another before"
    if line["command"] == "cancel":
        over = history.candidates[attempt["candidate_id"]]["finished_at"]
        ended = [at for at in (over, attempt["ended_at"]) if at is not None]
        if not ended or min(ended) > told_at + CLOCK_S:
            return "cancel, though the candidate was not over"
    elif line["command"] != "continue":
        return f"nobody asked for {line['command']}"
    return None


def _epochs(_history: History, line: Line) -> str | None:
    return None if line["status"] == 200 else "a known token's epochs must be stored"


def _result(history: History, line: Line) -> str | None:
    token = line["token"]
    if line["status"] == 201:
        return None if line["counts"] else "201 without counting"
    if line["status"] != 200:
        return "the result was what was asked for"
    if line["counts"]:
        return None if len(history.sent[token]) > 1 else "a repeated answer to a request sent once"
    winner = history.counted.get(history.attempts[token]["candidate_id"])
    if line.get("reason") != "already_done" or winner in (None, token):
        return "already done, by nobody else"
    return None


def _failure(history: History, line: Line) -> str | None:
    if line["status"] == 200:
        return None if line["state"] in ("queued", "failed", "leased", "running", "done") else f"state {line['state']}"
    return _superseded(history, line)


def _release(history: History, line: Line) -> str | None:
    return None if line["status"] == 204 else _superseded(history, line)


def _superseded(history: History, line: Line) -> str | None:
    if line["status"] != 409:
        return "neither carried out nor 409"
    if any(row["started_at"] <= line["at"][1] + CLOCK_S for row in history.later(line["token"])):
        return None
    return "lease lost, to nobody"


_RULES: dict[str, Callable[[History, Line], str | None]] = {
    "register": _register,
    "ask": _ask,
    "beat": _beat,
    "epochs": _epochs,
    "result": _result,
    "failure": _failure,
    "release": _release,
}


def one_request_one_answer(history: History) -> list[str]:
    """The same request id gets the same leases, and no two requests get the same lease."""
    wrong = []
    by_request: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    by_token: defaultdict[str, set[str]] = defaultdict(set)
    for line in history.lines:
        if line["do"] == "ask" and line.get("leases"):
            tokens = tuple(token for _, _, token in line["leases"])
            by_request[line["request_id"]].add(tokens)
            for token in tokens:
                by_token[token].add(line["request_id"])
    wrong += [f"request {key[:8]} got {len(given)} different answers" for key, given in by_request.items() if len(given) > 1]
    wrong += [f"lease {key[:8]} went to {len(askers)} requests" for key, askers in by_token.items() if len(askers) > 1]
    return wrong
