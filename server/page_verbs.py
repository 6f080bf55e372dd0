"""What a page's buttons do: a form posted to an address of its own, carried out as the API does it, and back to the page.

No other site can press one: the cookie is SameSite=Strict, and ``server.access`` refuses every change that a page of another
origin asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, get_args
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from sqlalchemy import Connection

from hypevolve import messages
from server import campaigns, confirming, pages, steering
from server.access import needs
from server.coordinator import coordinator_of
from server.errors import Invalid

Verb = Literal["pause", "resume", "drain", "cancel", "retry", "extend", "confirm"]
VERBS: tuple[Verb, ...] = get_args(Verb)
LONGEST = 200  # bytes of a form

router = APIRouter(route_class=pages.PageRoute, include_in_schema=False)


@router.post("/c/{name}/do/{verb}", dependencies=[needs("operator")])
async def do(request: Request, name: str, verb: Annotated[Verb, InPath()]) -> Response:
    """Carry out a decision about a campaign and show it again."""
    form = parse_qs((await request.body())[:LONGEST].decode("ascii", "replace"), max_num_fields=4)
    work = _work(name, verb, {key: values[0] for key, values in form.items()})
    coordinator = coordinator_of(request)
    await coordinator.ordinary(lambda: coordinator.database.run(work))
    coordinator.watch.stir()
    return RedirectResponse(pages.link(request, "campaign_page", name=name), 303, {"Cache-Control": "no-store"})


def _work(name: str, verb: Verb, form: dict[str, str]) -> Callable[[Connection], object]:
    """Raises Invalid: a field of the form is no number, or out of its range."""
    try:
        match verb:
            case "pause":
                return lambda c: steering.decide(c, name, "paused")
            case "resume":
                return lambda c: steering.decide(c, name, "running")
            case "drain":
                return lambda c: steering.decide(c, name, "draining")
            case "cancel":
                return lambda c: steering.cancel(c, name)
            case "retry":
                return lambda c: campaigns.retry(c, name)
            case "extend":
                asked = messages.ChangeCampaign.model_validate(form)
                return lambda c: campaigns.change(c, name, asked)
            case "confirm":
                wanted = messages.Confirm.model_validate(form)
                return lambda c: confirming.confirm(c, name, wanted)
    except ValidationError as error:
        first = error.errors()[0]
        raise Invalid("form", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
