"""Who is asking: login, logout, and the session behind a request."""

import asyncio
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel, StringConstraints

from anxin.db.scope import Scope
from anxin.db.sessions import (
    Authority,
    OwnSession,
    authorities,
    confirm,
    create_session,
    end_own,
    end_session,
    forgive_attempts,
    hash_token,
    note_attempt,
    sessions_of,
)
from anxin.db.users import Role, User, credentials
from anxin.errors import NotFound
from anxin.logs import log
from anxin.passwords import password_matches
from api.answers import Page, answer
from api.fields import Body, Id, Text
from api.permissions import Forbidden, Right, scope_of
from api.problems import NotConfirmed, TooMany, Unauthenticated
from api.services import COOKIE, Db, Services, Shared, services, token_of

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FREE_ATTEMPTS: Final = 5
_LONGEST_DELAY_S: Final = 8.0
_WRONG: Final = "User name or password is wrong."
CONFIRMED_FOR: Final = timedelta(minutes=10)
"""So long a shown password counts for what must be confirmed."""
_LONGEST_DEVICE: Final = 60
# In this order: browsers and systems say that they are others as well.
_BROWSERS: Final = (("MicroMessenger", "WeChat"), ("Edg", "Edge"), ("Firefox", "Firefox"),
                    ("Chrome", "Chrome"), ("Safari", "Safari"))  # fmt: skip
_SYSTEMS: Final = (("HarmonyOS", "HarmonyOS"), ("Android", "Android"), ("iPhone", "iPhone"),
                   ("iPad", "iPad"), ("Windows", "Windows"), ("Macintosh", "macOS"),
                   ("Linux", "Linux"))  # fmt: skip

Method = Literal["password", "oidc", "wecom"]
"""How somebody has shown at the beginning of a session who it is."""

router = APIRouter(tags=["sessions"])
_log = log(__name__)
_bearer = HTTPBearer(auto_error=False, description="The access_token of a login.")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="The session of the pages.")


@dataclass(frozen=True, slots=True)
class Grant:
    """A user with the scope that one right has for it, and how it came."""

    user: Authority
    scope: Scope
    channel: str


async def current(
    request: Request,
    _bearer_known: Annotated[object, Depends(_bearer)],  # both only declare themselves in OpenAPI
    _cookie_known: Annotated[object, Depends(_cookie)],
) -> Authority:
    """Return the session of a request; raise Unauthenticated, or Forbidden across sites."""
    token, by_cookie = token_of(request)
    if not token:
        raise Unauthenticated
    if by_cookie and request.method not in _SAFE_METHODS:
        # Every browser names the origin of an unsafe request; a program should send the header.
        if "origin" not in request.headers and "sec-fetch-site" not in request.headers:
            raise Forbidden("Without a browser, send the token as Authorization: Bearer.")
        if _from_other_site(request):
            raise Forbidden("This was sent by a page of another site.")
    token_hash = hash_token(token)
    found = await authorities(services(request).door, [token_hash])
    if token_hash not in found:
        raise Unauthenticated("The session has ended. Log in again.")
    request.state.user = found[token_hash]  # for the audit
    return found[token_hash]


Current = Annotated[Authority, Depends(current)]


def may(right: Right) -> Any:  # noqa: ANN401  # what FastAPI's Depends returns
    """Return the dependency that gives a Grant for a right, or refuses."""

    async def grant(request: Request, user: Current) -> Grant:
        channel = "station" if token_of(request)[1] else "api"
        return Grant(user, scope_of(user, right), channel)

    return Depends(grant)


def confirmed(right: Right) -> Any:  # noqa: ANN401  # what FastAPI's Depends returns
    """Return the dependency for what a stolen session must not do: the password was just shown."""

    async def grant(granted: Annotated[Grant, may(right)]) -> Grant:
        if granted.user.confirmed_at < datetime.now(UTC) - CONFIRMED_FOR:
            raise NotConfirmed
        return granted

    return Depends(grant)


class Login(Body):
    """A user name and its password."""

    username: Annotated[Text, StringConstraints(min_length=1, max_length=64)]
    password: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Session(BaseModel):
    """A session that has begun; the token is shown here only."""

    access_token: str
    token_type: str
    expires_at: datetime
    user: User


@router.post("/auth/login", response_model=Session)
async def login(body: Login, request: Request, shared: Shared) -> Response:
    """Begin a session: as a cookie for pages, and as a bearer token for programs."""
    if _from_other_site(request):
        raise Forbidden("This was sent by a page of another site.")
    address = _address(request)
    known = await credentials(shared.door, body.username)
    request.state.user_id = known and known[0]  # for the audit, whether it is them or not
    await _check(shared, body.username, body.password, address)
    if known is None:
        raise Unauthenticated(_WRONG)
    return await begin_session(request, shared, known[0], "password")


@router.post("/auth/logout", status_code=HTTPStatus.NO_CONTENT)
async def logout(user: Current, shared: Shared) -> Response:
    """End this session at once; its streams are closed."""
    await end_session(shared.door, user.token_hash)
    shared.hub.look_again()
    response = Response(status_code=HTTPStatus.NO_CONTENT)
    response.delete_cookie(
        COOKIE, path="/", secure=shared.settings.cookie_secure, httponly=True, samesite="strict"
    )
    return response


@router.get("/me/sessions", response_model=Page[OwnSession])
async def list_own_sessions(user: Current, database: Db) -> Response:
    """Return where one is logged in: address, device and last use."""
    found = await sessions_of(database, user.user_id, user.session_id)
    return answer({"items": found, "next": None})


@router.delete("/me/sessions", status_code=HTTPStatus.NO_CONTENT)
async def end_other_sessions(user: Current, shared: Shared) -> Response:
    """End every session of one's own but this one; their streams are closed."""
    await end_own(shared.door, user.user_id, user.session_id, None)
    shared.hub.look_again()
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.delete("/me/sessions/{session_id}", status_code=HTTPStatus.NO_CONTENT)
async def end_own_session(session_id: Id, user: Current, shared: Shared) -> Response:
    """End one session of one's own; its streams are closed."""
    if not await end_own(shared.door, user.user_id, user.session_id, int(session_id)):
        raise NotFound(f"You have no session {session_id}.")
    shared.hub.look_again()
    return Response(status_code=HTTPStatus.NO_CONTENT)


class Confirmation(Body):
    """The password of who is logged in."""

    password: Annotated[str, StringConstraints(min_length=1, max_length=256)]


@router.post("/auth/step-up", status_code=HTTPStatus.NO_CONTENT)
async def step_up(body: Confirmation, request: Request, user: Current, shared: Shared) -> Response:
    """Show the password again; for ten minutes this session may do what asks for it.

    A wrong one is answered 403: the session goes on, and 401 would tell a page that it has ended.
    """
    try:
        await _check(shared, user.username, body.password, _address(request))
    except Unauthenticated as wrong:
        raise NotConfirmed("The password is wrong. Try again.") from wrong
    await confirm(shared.door, user.token_hash)
    return Response(status_code=HTTPStatus.NO_CONTENT)


class Me(BaseModel):
    """Who is logged in, and until when."""

    id: str
    username: str
    role: Role
    place_id: str | None
    expires_at: datetime
    family: dict[str, list[str]]
    rights: list[str]


@router.get("/me", response_model=Me)
async def me(user: Current, _: Db) -> Response:
    """Return the user of this session; `family` says what a relative may see of whom.

    `rights` are what its role may do at all; on whom is a matter of its place, or of consent.
    """
    links = {str(resident): sorted(scopes) for resident, scopes in user.links.items()}
    return answer(
        {
            **as_user(user),
            "expires_at": user.expires_at,
            "family": links,
            "rights": sorted(user.rights),
        }
    )


async def begin_session(
    request: Request, shared: Services, user_id: int, method: Method
) -> Response:
    """Begin a session of a user already known to be right; `method` says by what.

    The answer is a Session, and carries the cookie of the pages. A disabled user is refused.
    """
    token = secrets.token_urlsafe(32)
    lifetime = timedelta(hours=shared.settings.session_hours)
    await create_session(
        shared.door,
        user_id,
        hash_token(token),
        idle=timedelta(minutes=shared.settings.session_idle_minutes),
        ends_at=datetime.now(UTC) + lifetime,
        address=_address(request),
        device=_device(request.headers.get("user-agent", "")),
    )
    user = (await authorities(shared.door, [hash_token(token)])).get(hash_token(token))
    if user is None:
        raise Unauthenticated(_WRONG)
    await _end_former(request, shared, user)
    _log.info("login", user=user.user_id, method=method)
    body = {
        "access_token": token,
        "token_type": "bearer",
        "expires_at": user.expires_at,
        "user": as_user(user),
    }
    response = answer(body, headers={"cache-control": "no-store"})
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(lifetime.total_seconds()),
        path="/",
        secure=shared.settings.cookie_secure,
        httponly=True,
        samesite="strict",
    )
    return response


def as_user(user: Authority) -> dict[str, Any]:
    """Return the user behind a session in the form of the API."""
    return {
        "id": str(user.user_id),
        "username": user.username,
        "role": user.role,
        "place_id": None if user.place_id is None else str(user.place_id),
        "disabled_at": None,
    }


def _from_other_site(request: Request) -> bool:
    """Tell whether a browser says that a page of another site sent this."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    host = request.headers.get("host", "").lower()
    return origin is not None and origin.partition("://")[2].lower() != host


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


async def _check(shared: Services, username: str, password: str, address: str) -> None:
    """Raise Unauthenticated for a wrong password; whoever guesses is slowed down."""
    attempts = await note_attempt(shared.door, username, address)
    await _slow_down(shared.delayed, *attempts)
    # Looked up after the wait: what was changed meanwhile holds.
    known = await credentials(shared.door, username)
    async with shared.hashing:
        right = await asyncio.to_thread(password_matches, password, known and known[1])
    if not right:
        _log.info("login_failed", address=address, failed_before=attempts[0])
        raise Unauthenticated(_WRONG)
    await forgive_attempts(shared.door, username, address)


async def _end_former(request: Request, shared: Services, user: Authority) -> None:
    """End the session that this browser had for the same user: a new login takes its place.

    A program that keeps several tokens keeps them.
    """
    former = request.cookies.get(COOKIE, "")
    if not former or "sec-fetch-site" not in request.headers:
        return
    token_hash = hash_token(former)
    known = (await authorities(shared.door, [token_hash])).get(token_hash)
    if known is not None and known.user_id == user.user_id:
        await end_session(shared.door, token_hash)
        shared.hub.look_again()


def _device(says: str) -> str:
    """Return in words what a browser or program says of itself."""
    system = next((name for sign, name in _SYSTEMS if sign in says), "")
    browser = next((name for sign, name in _BROWSERS if sign in says), "")
    if system or browser:
        return " · ".join(filter(None, (browser, system)))
    return "".join(letter for letter in says if letter.isprintable())[:_LONGEST_DEVICE]


async def _slow_down(delayed: asyncio.Semaphore, from_here: int, from_anywhere: int) -> None:
    """Make guessing slow without locking anybody out.

    Failures from one address slow that address; failures from many slow everybody a little.
    """
    delay_s = 0.0
    if from_here > _FREE_ATTEMPTS:
        delay_s = min(0.5 * 2 ** (from_here - _FREE_ATTEMPTS - 1), _LONGEST_DELAY_S)
    elif from_anywhere > 10 * _FREE_ATTEMPTS:
        delay_s = 1.0
    if delay_s:
        if delayed.locked():
            raise TooMany
        async with delayed:
            await asyncio.sleep(delay_s)
