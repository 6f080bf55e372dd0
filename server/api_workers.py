"""The worker protocol over HTTP: register, ask, beat, report, release. Each route is one short transaction."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from hypevolve import __version__, messages
from server import fleet, leases, results
from server.access import needs
from server.caller import acting
from server.coordinator import Coordinator, coordinator_of
from server.errors import Conflict, Forbidden, TooOld

router = APIRouter(tags=["worker protocol"])

MAX_WAIT_S = 30.0


@router.post("/workers", dependencies=[needs("worker")])
async def register(request: Request, body: messages.RegisterWorker) -> messages.Registered:
    """A worker introduces itself. Its id is new at every start of its process."""
    if body.protocol < messages.OLDEST_PROTOCOL:
        raise TooOld(
            "protocol",
            f"this worker speaks protocol {body.protocol}, the coordinator {messages.OLDEST_PROTOCOL} to {messages.PROTOCOL}; "
            f"install hypevolve {__version__} on the worker",
        )
    coordinator = coordinator_of(request)
    await coordinator.ordinary(lambda: coordinator.database.run(lambda c: fleet.register(c, body)))
    return messages.Registered(
        protocol=min(body.protocol, messages.PROTOCOL),
        version=__version__,
        limits={"wait_s": MAX_WAIT_S, "checkpoint_bytes": coordinator.most_checkpoint_bytes},
    )


@router.post("/workers/{worker}/drain", dependencies=[needs("operator")])
async def drain(request: Request, worker: str) -> messages.Drained:
    """Ask the workers of that name to finish what they train and end. They hear it at their next heartbeat or ask."""
    coordinator = coordinator_of(request)
    processes = await coordinator.ordinary(lambda: coordinator.database.run(lambda c: fleet.drain(c, worker)))
    coordinator.watch.dismiss()  # those that wait for work ask again, and hear it
    return messages.Drained(processes=processes)


@router.get("/workers", dependencies=[needs("read")])
async def workers(request: Request) -> messages.WorkerList:
    """Workers heard of in the last day, with the leases they hold."""
    coordinator = coordinator_of(request)
    return messages.WorkerList(items=await coordinator.ordinary(lambda: coordinator.database.run(fleet.workers)))


@router.post(
    "/leases",
    dependencies=[needs("worker")],
    response_model=messages.Leases,
    responses={204: {"description": "No work now; ask again after Retry-After seconds"}},
)
async def ask(request: Request, body: messages.Ask, prefer: Annotated[str | None, Header()] = None) -> Any:
    """Ask for work. `Prefer: wait=20` waits that many seconds (30 at most) until there is some.

    A 204 may carry `Hypevolve-Command`: `drain` (end), or `self-test` (nothing until it is passed), with `Hypevolve-Reason`.
    """
    return await give_work(coordinator_of(request), _within_binding(body), prefer, request.is_disconnected)


async def give_work(
    coordinator: Coordinator, body: messages.Ask, prefer: str | None, disconnected: Callable[[], Awaitable[bool]]
) -> Response:
    """The answer to an ask; also of ``server.express``, as are ``hear`` and ``take_result``."""
    deadline = time.monotonic() + _wait_s(prefer)
    while True:
        answer = await coordinator.ask(body)
        standing = answer.standing
        if answer.leases:
            # Written here: checking our own answer once more costs as much as all the rest of the route.
            return Response(messages.Leases(leases=answer.leases).model_dump_json(), media_type="application/json")
        if standing.command is not None:
            told = {
                "Retry-After": str(max(math.ceil(standing.wait_s), 1)),
                messages.COMMAND_HEADER: standing.command,
                messages.REASON_HEADER: " ".join(standing.reason.split()).encode("ascii", "replace").decode(),
            }
            return Response(status_code=204, headers=told)
        left = deadline - time.monotonic()
        if left <= 0 or not await coordinator.watch.wait(body.campaigns, standing.offer, left) or await disconnected():
            return Response(status_code=204, headers={"Retry-After": "2"})


def _within_binding(body: messages.Ask) -> messages.Ask:
    """The ask, for the campaigns that its token is bound to.

    Raises:
        Forbidden: it names another. That says nothing about whether there is such a campaign.
    """
    bound = acting.get().only
    if bound is None:
        return body
    if others := sorted(set(body.campaigns or []) - set(bound)):
        raise Forbidden("bound", f"this token is bound to {', '.join(bound)}, and {', '.join(others)} is none of them")
    return body.model_copy(update={"campaigns": body.campaigns or bound})


def _wait_s(prefer: str | None) -> float:
    wanted = re.search(r"\bwait\s*=\s*(\d{1,6})", prefer or "")
    return min(float(wanted[1]), MAX_WAIT_S) if wanted else 0.0


@router.put("/leases/{token}", dependencies=[needs("worker")])
async def heartbeat(request: Request, token: str, body: messages.Heartbeat) -> messages.HeartbeatAnswer:
    """Renew a lease. Only the command `cancel` stops a training."""
    return await hear(coordinator_of(request), token, body)


async def hear(coordinator: Coordinator, token: str, body: messages.Heartbeat) -> messages.HeartbeatAnswer:
    return await coordinator.essential(
        lambda: coordinator.database.run(lambda c: leases.heartbeat(c, token, body), essential=True)
    )


@router.delete("/leases/{token}", status_code=204, dependencies=[needs("worker")])
async def release(request: Request, token: str, reason: Annotated[str, Query(max_length=200)] = "released") -> None:
    """Hand a candidate back, free of charge; it is offered again at once."""
    coordinator = coordinator_of(request)
    await coordinator.essential(lambda: coordinator.database.run(lambda c: leases.release(c, token, reason), essential=True))
    coordinator.watch.stir()


@router.post("/leases/{token}/epochs", dependencies=[needs("worker")])
async def epochs(request: Request, token: str, body: messages.Epochs) -> messages.EpochsAnswer:
    """A batch of epoch metrics; repeating it changes nothing."""
    coordinator = coordinator_of(request)
    return await coordinator.essential(
        lambda: coordinator.database.run(lambda c: results.store_epochs(c, token, body), essential=True)
    )


@router.put(
    "/candidates/{candidate}/attempts/{token}/result",
    responses={201: {"model": messages.ResultAnswer}},
    dependencies=[needs("worker")],
)
async def result(
    request: Request, response: Response, candidate: int, token: str, body: messages.Result
) -> messages.ResultAnswer:
    """The result of a training: 201 where it was stored and counts, 200 where an answer is repeated or came late."""
    response.status_code, answer = await take_result(coordinator_of(request), candidate, token, body)
    return answer


async def take_result(
    coordinator: Coordinator, candidate: int, token: str, body: messages.Result
) -> tuple[int, messages.ResultAnswer]:
    """The status and the answer.

    Raises:
        Conflict: the result does not count, for what it says.
    """
    verdict = await coordinator.result(candidate, token, body)
    coordinator.watch.stir()
    if verdict.refusal is not None:
        raise Conflict("result-refused", f"{verdict.refusal}; the numbers are kept for audit and do not count")
    return 201 if verdict.stored and verdict.answer.counts else 200, verdict.answer


@router.post("/leases/{token}/failure", dependencies=[needs("worker")])
async def failure(request: Request, token: str, body: messages.Failure) -> messages.FailureAnswer:
    """The training said no: `nan`, `oom`, `data`, `exit_code`, `timeout` or `crash`."""
    coordinator = coordinator_of(request)
    answer = await coordinator.essential(
        lambda: coordinator.database.run(lambda c: results.store_failure(c, token, body), essential=True)
    )
    coordinator.watch.stir()
    return answer
