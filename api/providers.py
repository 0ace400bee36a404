"""Logins through providers of identities: there, and back with an answer that is not believed yet.

What protects them: the state is random, kept here, good once and for ten minutes, for one provider,
and for the browser that began, which holds a cookie of it. Where a login goes on to is decided when
it begins, on this host. The address to come back to is a setting, never what a request names.
"""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from hmac import compare_digest
from html import escape
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from anxin.db import identities as stored
from anxin.db.identities import OutsideLogin
from anxin.db.sessions import authorities, end_session, hash_token
from anxin.errors import AnxinError
from anxin.logs import log
from anxin.providers import Offer
from anxin.signin import Attempt, ProviderAway, SignInRefused, Subject
from api.answers import Page, answer
from api.auth import begin_session
from api.problems import STATUS, TooMany, Unauthenticated, problem
from api.services import Services, Shared, services, token_of

COOKIE: Final = "anxin_sign_in"
PATH: Final = "/api/v1/auth/providers"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST: Final = 4096

router = APIRouter(tags=["sessions"])
_log = log(__name__)

Name = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,32}$", description="Name of the provider.")]
Next = Annotated[
    str,
    Query(
        max_length=200,
        # A path of this host and nothing that a browser could read as another: no `//`, no `\`.
        pattern=r"^/([A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*)?(\?[A-Za-z0-9_=&%.-]*)?$",
        description="The page to go on to.",
    ),
]
Answered = Annotated[str | None, Query(max_length=_LONGEST)]


class NotLinked(AnxinError):
    """Nobody here belongs to this identity. Ask your administrator to link it."""

    def __init__(self, offer: Offer, subject: str) -> None:
        """`subject` is shown to whom it belongs, for the administrator to know."""
        super().__init__()
        self.offer, self.subject = offer, subject


class ProviderOffer(BaseModel):
    """A provider of identities, and what its button says."""

    name: str
    zh: str
    en: str
    confirms: bool


_STATUS: Final[dict[type[AnxinError], HTTPStatus]] = {
    **STATUS,
    SignInRefused: HTTPStatus.FORBIDDEN,
    NotLinked: HTTPStatus.FORBIDDEN,
    ProviderAway: HTTPStatus.SERVICE_UNAVAILABLE,
}
_TYPES: Final[dict[type[AnxinError], str]] = {
    SignInRefused: "sign-in-refused",
    NotLinked: "not-linked",
    ProviderAway: "provider-away",
}
_NOT_LINKED: Final = (
    (
        "您在“{}”的身份还没有和安心的用户关联。请联系本机构的安心管理员，把下面两行告诉管理员。"
        "在此之前，可以用用户名和密码登录。"
    ),
    (
        "Your identity at {} is not linked to a user yet. Ask the administrator of your house, and "
        "pass on the two lines below. Until then your password still works."
    ),
)
_AWAY: Final = (
    "登录服务没有正常响应。请返回登录页，用用户名和密码登录，或稍后再试。",
    "The sign-in service does not answer as it should. Use your password, or try again later.",
)
_REFUSED: Final = (
    "这次登录已经过期、已经用过，或者不是在这个浏览器里开始的。请返回登录页重新开始。",
    "This sign-in has run out, was used already, or was not begun in this browser. Begin again.",
)


@router.get("/auth/providers", response_model=Page[ProviderOffer])
async def list_providers(shared: Shared) -> Response:
    """Return by whom one can log in beside a password; `confirms`: also to step up."""
    items = [
        {"name": one.name, "zh": one.zh, "en": one.en, "confirms": one.provider.confirms}
        for one in shared.providers
    ]
    return answer({"items": items, "next": None})


@router.get(
    "/auth/providers/{provider}/login",
    status_code=HTTPStatus.SEE_OTHER,
    response_class=Response,
)
async def go(
    provider: Name,
    request: Request,
    shared: Shared,
    next: Next = "/",  # noqa: A002  # the name of the parameter
    confirm: bool = False,
) -> Response:
    """Send the browser to a provider; with `confirm` to show again who is logged in already."""
    try:
        return await _go(shared.providers[provider], request, next, confirm=confirm)
    except AnxinError as error:
        return _failure(request, error)


@router.get(
    "/auth/providers/{provider}/callback",
    status_code=HTTPStatus.SEE_OTHER,
    response_class=Response,
)
async def come_back(
    provider: Name,
    request: Request,
    shared: Shared,
    state: Answered = None,
    code: Answered = None,
    iss: Answered = None,
    error: Answered = None,
) -> Response:
    """Take a browser back from a provider, begin its session and send it on."""
    given = {"state": state, "code": code, "iss": iss, "error": error}
    sent = {name: value for name, value in given.items() if value is not None}
    try:
        offer = shared.providers[provider]
        if len(request.query_params.multi_items()) > len(request.query_params):
            raise SignInRefused
        response = await _come_back(offer, request, shared, sent)
    except AnxinError as fault:
        response = _failure(request, fault)
    response.delete_cookie(
        COOKIE, path=PATH, secure=shared.settings.cookie_secure, httponly=True, samesite="lax"
    )
    return response


async def _go(offer: Offer, request: Request, next_: str, *, confirm: bool) -> Response:
    shared = services(request)
    session_id = None
    if confirm:
        if not offer.provider.confirms:
            raise SignInRefused(
                "This sign-in service cannot confirm who you are. Use your password or a code."
            )
        token_hash = hash_token(token_of(request)[0])
        user = (await authorities(shared.door, [token_hash])).get(token_hash)
        if user is None:
            raise Unauthenticated
        session_id = user.session_id
    now = datetime.now(UTC)
    browser = secrets.token_urlsafe(32)
    attempt = Attempt(
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(48),
        redirect_uri=_redirect_uri(shared, offer),
        began_at=now,
        fresh=confirm,
        browser=request.headers.get("user-agent", ""),
    )
    address = await offer.provider.address(attempt, now)
    kept = await stored.begin_login(
        shared.door,
        state_hash=hash_token(attempt.state),
        browser_hash=hash_token(browser),
        provider=offer.name,
        nonce=attempt.nonce,
        verifier=attempt.verifier,
        next=next_,
        session_id=session_id,
        address=request.client.host if request.client else "unknown",
        began_at=now,
    )
    if not kept:
        raise TooMany
    response = Response(status_code=HTTPStatus.SEE_OTHER, headers={"location": address})
    response.set_cookie(
        COOKIE,
        browser,
        max_age=int(stored.LIFETIME.total_seconds()),
        path=PATH,
        secure=shared.settings.cookie_secure,
        httponly=True,
        samesite="lax",  # strict would not come back from another site
    )
    return response


async def _come_back(
    offer: Offer, request: Request, shared: Services, sent: Mapping[str, str]
) -> Response:
    now = datetime.now(UTC)
    login = await stored.take_login(shared.door, hash_token(sent.get("state", "")), now)
    browser = hash_token(request.cookies.get(COOKIE, ""))
    if (
        login is None
        or not login.valid
        or login.provider != offer.name
        or not compare_digest(login.browser_hash, browser)
    ):
        _log.info("sign_in_refused", provider=offer.name, reason="state")
        raise SignInRefused
    attempt = Attempt(
        state=sent["state"],
        nonce=login.nonce,
        verifier=login.verifier,
        redirect_uri=_redirect_uri(shared, offer),
        began_at=login.began_at,
        fresh=login.session_id is not None,
    )
    subject = await offer.provider.identify(attempt, sent, now)
    user_id = await _user_of(offer, request, shared, subject)
    former = await _former(shared, login, user_id)
    try:
        begun = await begin_session(request, shared, user_id, offer.provider.method)
    except Unauthenticated as error:  # linked to somebody who is shut out
        raise NotLinked(offer, subject.subject) from error
    token = msgspec.json.decode(begun.body)["access_token"]
    # A provider that knew the browser asked nobody anything: that is no proof of just now.
    await stored.note_shown(shared.door, hash_token(token), subject.shown_at or _EPOCH)
    if former is not None:
        await end_session(shared.door, former)
        shared.hub.look_again()
    response = Response(status_code=HTTPStatus.SEE_OTHER, headers={"location": login.next})
    for cookie in begun.headers.getlist("set-cookie"):
        response.headers.append("set-cookie", cookie)
    return response


async def _user_of(offer: Offer, request: Request, shared: Services, subject: Subject) -> int:
    """Return the user of an identity; raise NotLinked. The audit is told by a number only."""
    found = await stored.user_of(shared.door, subject.issuer, subject.subject)
    if found is None:
        request.state.object_id = f"{offer.name}:{fingerprint(subject)}"
        raise NotLinked(offer, subject.subject)
    identity_id, user_id = found
    request.state.object_id = str(identity_id)
    request.state.user_id = user_id
    return user_id


async def _former(shared: Services, login: OutsideLogin, user_id: int) -> bytes | None:
    """Return the session that somebody has confirmed, to be replaced; raise SignInRefused."""
    if login.session_id is None:
        return None
    former = await stored.session_hash(shared.door, login.session_id, user_id)
    if former is None:
        _log.info("sign_in_refused", provider=login.provider, reason="somebody_else")
        raise SignInRefused("Confirm with the identity of the user who is logged in.")
    return former


def fingerprint(subject: Subject) -> str:
    """Return what stands for an identity where its subject should not: the same for the same."""
    text = msgspec.json.encode([subject.issuer, subject.subject])
    return hashlib.sha256(text).hexdigest()[:16]


def _redirect_uri(shared: Services, offer: Offer) -> str:
    return f"{shared.providers.public_url}{PATH}/{offer.name}/callback"


def _failure(request: Request, error: AnxinError) -> Response:
    """Return why a login did not come about: a page for a person, a problem for a program."""
    kind = next((one for one in type(error).__mro__ if one in _STATUS), None)
    if kind is None:
        raise error
    status = _STATUS[kind]
    if "text/html" not in request.headers.get("accept", ""):
        extra: dict[str, object] = {"type": _TYPES[kind]} if kind in _TYPES else {}
        if isinstance(error, NotLinked):
            extra |= {"provider": error.offer.name, "subject": error.subject}
        return problem(status, str(error), headers=None, **extra)
    zh, en = _words(error)
    number = ""
    if isinstance(error, NotLinked):
        number = f'<p><code translate="no">{escape(error.offer.name)}</code></p>'
        number += f'<p><code translate="no">{escape(error.subject)}</code></p>'
    return Response(
        '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="dark light">'
        '<link rel="icon" href="/icon.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="/plain.css"><title>安心 Anxin</title></head><body><main>'
        f"<h1>登录没有完成</h1><p>{escape(zh)}</p>"
        f'<section lang="en"><h2>The login was not completed</h2><p>{escape(en)}</p></section>'
        f'{number}<p><a href="/login">返回登录页 · <span lang="en">Back to the login page</span>'
        "</a></p></main></body></html>",
        status_code=status,
        media_type="text/html",
        headers={"retry-after": "10"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None,
    )


def _words(error: AnxinError) -> tuple[str, str]:
    """Return in Chinese and in English what happened and what to do."""
    if isinstance(error, NotLinked):
        zh, en = _NOT_LINKED
        return zh.format(error.offer.zh), en.format(error.offer.en)
    if isinstance(error, ProviderAway):
        return _AWAY
    if isinstance(error, SignInRefused):
        return _REFUSED
    return "请返回登录页，稍后再试。", str(error)
