"""``hypevolve token`` and ``hypevolve events``: who may do what at a coordinator, and who did what."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hypevolve import messages
from hypevolve.console import CommandFailed, Output, cell
from hypevolve.online import connect

TOKEN_COLUMNS = ("name", "scopes", "campaigns", "state", "last_used", "expires", "created_by")
EVENT_COLUMNS = ("at", "who", "campaign", "number", "kind", "detail")


def create(
    output: Output, name: str, scopes: Sequence[messages.Scope], campaigns: Sequence[str], expires_days: float | None
) -> None:
    """Make a token; it goes to stdout and nowhere else."""
    try:
        wanted = messages.CreateToken(
            name=name,
            scopes=list(scopes),
            campaigns=list(campaigns) or None,
            expires_s=None if expires_days is None else expires_days * 86400,
        )
    except ValueError as error:
        raise CommandFailed(f"the token: {_reason(error)}", 2) from None
    with connect(output) as client:
        made = client.create_token(wanted)
    if output.json:
        output.document(made.model_dump(mode="json"))
        return
    output.say(f"made '{made.name}' ({', '.join(made.scopes)}); this token is shown once, keep it like a password:")
    output.line(made.token)
    if made.first:
        output.say("it is the first: from now on every request needs a token, this machine's too (HYPEVOLVE_TOKEN, --token)")


def _reason(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    return "; ".join(f"{'.'.join(str(part) for part in e['loc'])} {e['msg']}".strip() for e in errors())


def ls(output: Output) -> None:
    """Every token in a line, without what it says."""
    with connect(output) as client:
        tokens = client.tokens()
    if output.json:
        output.document({"items": [token.model_dump(mode="json") for token in tokens]})
        return
    if not tokens:
        output.say("no access token yet: only the coordinator's own machine is let in; next: hypevolve token create NAME")
        return
    output.table([_row(token) for token in tokens], TOKEN_COLUMNS)


def _row(token: messages.Token) -> dict[str, object]:
    state = "valid" if token.valid else "revoked" if token.revoked_at else "expired"
    return {
        "name": token.name,
        "scopes": token.scopes,
        "campaigns": "all" if token.campaigns is None else token.campaigns,
        "state": state,
        "last_used": "never" if token.last_used_at is None else f"{token.last_used_at:%Y-%m-%d %H:%M}",
        "expires": "never" if token.expires_at is None else f"{token.expires_at:%Y-%m-%d %H:%M}",
        "created_by": token.created_by,
    }


def revoke(output: Output, name: str) -> None:
    """End a token."""
    with connect(output) as client:
        token = client.revoke_token(name)
    if output.json:
        output.document(token.model_dump(mode="json"))
    else:
        output.say(f"'{name}' is revoked; within 5 s no coordinator lets it in")


def events(output: Output, campaign: str | None, limit: int | None) -> None:
    """Every change, the oldest first: of a campaign, or of the service itself."""
    with connect(output) as client:
        found = list(client.events(campaign, limit=limit))
    if output.json:
        output.document({"items": [event.model_dump(mode="json") for event in found]})
        return
    output.table([_event(event) for event in found], EVENT_COLUMNS)


def follow(output: Output, campaign: str | None) -> None:
    """Every change of a campaign, then those that happen; with ``--json`` an object a line.

    Raises:
        CommandFailed: no campaign is named.
    """
    if campaign is None:
        raise CommandFailed("--follow wants a campaign: hypevolve events NAME --follow", 2)
    with connect(output) as client:
        for event in client.follow(campaign):
            if output.json:
                output.line(event.model_dump_json())
            else:
                output.line("\t".join(cell(_event(event)[name]) for name in EVENT_COLUMNS))
            sys.stdout.flush()


def _event(event: messages.Event) -> dict[str, object]:
    detail = " ".join(f"{key}={value}" for key, value in event.detail.items())
    return {**event.model_dump(), "at": f"{event.at:%Y-%m-%d %H:%M:%S}", "detail": detail[:200]}
