"""Logging in on the page: a token once typed is kept by the browser, in a cookie that no script can read."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from server import pages
from server.access import COOKIE, door_of, refuse_other_sites
from server.errors import CoordinatorError, Unauthorised

router = APIRouter(include_in_schema=False, route_class=pages.PageRoute)


@router.get("/login")
async def login_page(request: Request, next: str = "/") -> Response:
    """Ask for a token."""
    return await pages.show(request, "login.html", next=_ours(next), fault="")


@router.post("/login")
async def login(request: Request) -> Response:
    """Keep a token that is valid; say what is wrong with another."""
    form = parse_qs((await request.body()).decode("ascii", "replace"), max_num_fields=4)
    secret, after = form.get("token", [""])[0].strip(), _ours(form.get("next", ["/"])[0])
    headers = {key: value for key, value in request.headers.items() if key != "cookie"}
    headers["authorization"] = f"Bearer {secret}"
    try:
        caller = await door_of(request).caller("POST", headers, request.client.host if request.client else "")
    except Unauthorised:
        fault = "This token is unknown, revoked or expired."
        return await pages.show(request, "login.html", status=401, next=after, fault=fault)
    except CoordinatorError as error:
        return await pages.show(request, "login.html", status=error.status, next=after, fault=str(error))
    if "read" not in caller.scopes:
        fault = (
            f"The token '{caller.name}' may not read; it is for workers. The page needs one of scope read, operator or admin."
        )
        return await pages.show(request, "login.html", status=403, next=after, fault=fault)
    root = str(request.scope.get("root_path", "")).rstrip("/")
    answer = RedirectResponse(root + after, 303, {"Cache-Control": "no-store"})
    answer.set_cookie(COOKIE, secret, path=root or "/", httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return answer


@router.post("/logout")
async def logout(request: Request) -> Response:
    """Forget the token; it stays valid."""
    refuse_other_sites(request.headers, strict=False)
    root = str(request.scope.get("root_path", "")).rstrip("/")
    answer = RedirectResponse(f"{root}/login", 303, {"Cache-Control": "no-store"})
    answer.delete_cookie(COOKIE, path=root or "/", httponly=True, samesite="strict")
    return answer


def _ours(address: str) -> str:
    """``address`` where it is a path of ours, else the first page: a login must lead nowhere else."""
    parts = urlsplit(address)
    plain = address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
    return address if plain and not parts.scheme and not parts.netloc else "/"
