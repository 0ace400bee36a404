"""Who is asking: login, logout, and the session behind a request."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel, StringConstraints

from anxin.db.scope import Scope
from anxin.db.sessions import (
    Authority,
    Lack,
    Method,
    create_session,
    end_session,
    hash_token,
    renew,
    session,
)
from anxin.db.users import Role, User
from anxin.logs import log
from anxin.passwords import LONGEST
from api.answers import answer
from api.browsers import device_name
from api.fields import Body, Text
from api.permissions import Forbidden, Right, scope_of
from api.problems import (
    CodeMissing,
    CodeMissingHere,
    NotConfirmed,
    PasswordChangeNeeded,
    SecondFactorNeeded,
    Unauthenticated,
)
from api.proof import WRONG, address_of, remember_device, show_at_login, show_in_session
from api.services import COOKIE, Db, Services, Shared, needing_totp, services, token_of

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CONFIRMED_FOR: Final = timedelta(minutes=10)
"""So long it counts for what must be confirmed that somebody has shown who it is."""

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


async def any_session(
    request: Request,
    _bearer_known: Annotated[object, Depends(_bearer)],  # both only declare themselves in OpenAPI
    _cookie_known: Annotated[object, Depends(_cookie)],
) -> Authority:
    """Return the session of a request, also one that lacks something yet.

    Raise Unauthenticated, or Forbidden across sites.
    """
    token, by_cookie = token_of(request)
    if not token:
        raise Unauthenticated
    if by_cookie and request.method not in _SAFE_METHODS:
        # Every browser names the origin of an unsafe request; a program should send the header.
        if "origin" not in request.headers and "sec-fetch-site" not in request.headers:
            raise Forbidden("Without a browser, send the token as Authorization: Bearer.")
        if _from_other_site(request):
            raise Forbidden("This was sent by a page of another site.")
    found = await session(services(request).door, hash_token(token))
    if found is None:
        raise Unauthenticated("The session has ended. Log in again.")
    request.state.user = found  # for the audit
    return found


AnySession = Annotated[Authority, Depends(any_session)]
"""For the few routes that serve a session which lacks something yet, so that it gets it."""


async def current(user: AnySession) -> Authority:
    """Return the session of a request; raise what is missing before it may do anything."""
    if user.limited == "password":
        raise PasswordChangeNeeded
    if user.limited == "second-factor":
        raise SecondFactorNeeded
    return user


Current = Annotated[Authority, Depends(current)]


def may(right: Right) -> Any:  # noqa: ANN401  # what FastAPI's Depends returns
    """Return the dependency that gives a Grant for a right, or refuses."""

    async def grant(request: Request, user: Current) -> Grant:
        channel = "station" if token_of(request)[1] else "api"
        return Grant(user, scope_of(user, right), channel)

    return Depends(grant)


def confirmed(right: Right) -> Any:  # noqa: ANN401  # what FastAPI's Depends returns
    """Return the dependency for what a stolen session must not do: it was just shown who it is."""

    async def grant(granted: Annotated[Grant, may(right)]) -> Grant:
        _check_confirmed(granted.user)
        return granted

    return Depends(grant)


async def _confirmed_any(user: AnySession) -> Authority:
    if user.limited == "password":
        raise PasswordChangeNeeded
    _check_confirmed(user)
    return user


ConfirmedAny = Annotated[Authority, Depends(_confirmed_any)]
"""For one's own second factor, also of a session that lacks one."""


def _check_confirmed(user: Authority) -> None:
    if user.confirmed_at < datetime.now(UTC) - CONFIRMED_FOR:
        raise NotConfirmed


Shown = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]
"""A password as somebody shows it."""
Code = Annotated[str, StringConstraints(min_length=1, max_length=64)]
"""What an authenticator shows, or a recovery code."""


class Login(Body):
    """A user name and its password; `totp` where the user has a second factor."""

    username: Annotated[Text, StringConstraints(min_length=1, max_length=64)]
    password: Shown
    totp: Code | None = None


class Session(BaseModel):
    """A session that has begun; the token is shown here only."""

    access_token: str
    token_type: str
    expires_at: datetime
    user: User
    limited: Lack | None
    """What the session lacks, and may do nothing but get: a password, or a second factor."""


@router.post("/auth/login", response_model=Session)
async def login(body: Login, request: Request, shared: Shared) -> Response:
    """Begin a session: as a cookie for pages, and as a bearer token for programs.

    A user with a second factor sends a code as well: without it 401 of the type `second-factor`.
    """
    if _from_other_site(request):
        raise Forbidden("This was sent by a page of another site.")
    user_id = await show_at_login(request, shared, body.username, body.password, body.totp)
    return await begin_session(request, shared, user_id, "password")


@router.post("/auth/logout", status_code=HTTPStatus.NO_CONTENT)
async def logout(user: AnySession, shared: Shared) -> Response:
    """End this session at once; its streams are closed."""
    await end_session(shared.door, user.token_hash)
    shared.hub.look_again()
    response = Response(status_code=HTTPStatus.NO_CONTENT)
    response.delete_cookie(
        COOKIE, path="/", secure=shared.settings.cookie_secure, httponly=True, samesite="strict"
    )
    return response


class Confirmation(Body):
    """The password of who is logged in; `totp` where there is a second factor.

    Who has logged in without a password shows a code alone.
    """

    password: Shown | None = None
    totp: Code | None = None


class Renewed(BaseModel):
    """The session goes on with another token, shown here only; the former one is void."""

    access_token: str
    expires_at: datetime


@router.post("/auth/step-up", response_model=Renewed)
async def step_up(
    body: Confirmation, request: Request, user: AnySession, shared: Shared
) -> Response:
    """Show again who one is; for ten minutes this session may do what asks for it.

    A wrong password is answered 403: the session goes on, and 401 would tell a page that it has
    ended.
    """
    await show_again(request, shared, user, body.password, body.totp)
    return await renewed(shared, user)


async def show_again(
    request: Request, shared: Services, user: Authority, password: str | None, code: str | None
) -> None:
    """Return if the user of a session shows these; raise NotConfirmed, CodeMissingHere."""
    try:
        await show_in_session(request, shared, user, password, code)
    except CodeMissing as missing:
        raise CodeMissingHere(str(missing)) from missing
    except Unauthenticated as wrong:
        said = str(wrong)
        raise NotConfirmed("The password is wrong. Try again." if said == WRONG else said) from None


class Me(BaseModel):
    """Who is logged in, and until when."""

    id: str
    username: str
    role: Role
    place_id: str | None
    expires_at: datetime
    family: dict[str, list[str]]
    rights: list[str]
    method: Method
    second_factor: bool
    limited: Lack | None


@router.get("/me", response_model=Me)
async def me(user: AnySession, _: Db) -> Response:
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
            "method": user.method,
            "second_factor": user.second_factor,
            "limited": user.limited,
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
    ends_at = datetime.now(UTC) + lifetime
    await create_session(
        shared.door,
        user_id,
        hash_token(token),
        idle=timedelta(minutes=shared.settings.session_idle_minutes),
        ends_at=ends_at,
        address=address_of(request),
        device=device_name(request.headers.get("user-agent", "")),
        method=method,
        needing=needing_totp(shared.settings),
    )
    user = await session(shared.door, hash_token(token))
    if user is None:
        raise Unauthenticated(WRONG)
    request.state.user_id = user_id
    await _end_former(request, shared, user)
    _log.info("login", user=user.user_id, method=method)
    body = {
        "access_token": token,
        "token_type": "bearer",
        "expires_at": user.expires_at,
        "user": as_user(user),
        "limited": user.limited,
    }
    response = answer(body, headers={"cache-control": "no-store"})
    _set_cookie(response, shared, token, ends_at)
    await remember_device(request, response, shared, user_id, secrets.token_urlsafe(32))
    return response


async def renewed(shared: Services, user: Authority, **more: object) -> Response:
    """Return the answer that gives a session another token; its streams go on."""
    token = secrets.token_urlsafe(32)
    ends = await renew(
        shared.door, user.token_hash, hash_token(token), needing=needing_totp(shared.settings)
    )
    if ends is None:
        raise Unauthenticated("The session has ended. Log in again.")
    shared.hub.look_again()
    body = {"access_token": token, "expires_at": ends[0], **more}
    response = answer(body, headers={"cache-control": "no-store"})
    _set_cookie(response, shared, token, ends[1])
    return response


def _set_cookie(response: Response, shared: Services, token: str, ends_at: datetime) -> None:
    response.set_cookie(
        COOKIE,
        token,
        max_age=max(0, int((ends_at - datetime.now(UTC)).total_seconds())),
        path="/",
        secure=shared.settings.cookie_secure,
        httponly=True,
        samesite="strict",
    )


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


async def _end_former(request: Request, shared: Services, user: Authority) -> None:
    """End the session that this browser had for the same user: a new login takes its place.

    A program that keeps several tokens keeps them.
    """
    former = request.cookies.get(COOKIE, "")
    if not former or "sec-fetch-site" not in request.headers:
        return
    token_hash = hash_token(former)
    known = await session(shared.door, token_hash)
    if known is not None and known.user_id == user.user_id:
        await end_session(shared.door, token_hash)
        shared.hub.look_again()
