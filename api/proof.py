"""What somebody shows to be who it is: a password, a code, and how often either may be wrong."""

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from fastapi import Request, Response

from anxin.db.accounts import (
    DEVICE_LIFETIME,
    Attempt,
    credentials,
    forgive,
    know_device,
    known_mark,
    note_attempt,
    strengthen,
    take_code,
)
from anxin.db.sessions import Authority, hash_token
from anxin.keys import read_keys
from anxin.logs import log
from anxin.passwords import check_password
from api.problems import CodeMissing, Unauthenticated
from api.services import Services

DEVICE_COOKIE: Final = "anxin_device"
WRONG: Final = "User name or password is wrong."
_PATH: Final = "/api/v1/auth"
"""Nothing else needs to know the device."""
_log = log(__name__)


def address_of(request: Request) -> str:
    """Return where a request comes from."""
    return request.client.host if request.client else "unknown"


async def show_at_login(
    request: Request, shared: Services, username: str, password: str, code: str | None
) -> int:
    """Return the user who shows these before a session; raise Unauthenticated, TooManyGuesses.

    Whoever guesses on devices that the user has never used keeps nobody out of a known one.
    """
    now = datetime.now(UTC)
    mark = await known_mark(shared.door, username, _mark(request), now)
    return await _show(request, shared, username, password, code, mark, now)


async def show_in_session(
    request: Request, shared: Services, user: Authority, password: str | None, code: str | None
) -> None:
    """Return if the user of a session shows these again; raise Unauthenticated, TooManyGuesses.

    Who has come without a password shows a code alone. A stolen session has a budget of its own.
    """
    now = datetime.now(UTC)
    mark = sha256(f"session {user.session_id}".encode()).digest()
    if password is not None:
        await _show(request, shared, user.username, password, code, mark, now)
        return
    if user.method == "password" or not user.second_factor:
        raise Unauthenticated("Send the `password`.")
    attempt = await note_attempt(
        shared.door, user.username, address=address_of(request), mark=mark, now=now
    )
    await _show_code(shared, user.user_id, code, now)
    await forgive(shared.door, attempt)


async def remember_device(
    request: Request, response: Response, shared: Services, user_id: int, token: str
) -> None:
    """Let the browser of a login be known to its user; `token` is random and goes into a cookie."""
    await know_device(
        shared.door, user_id, old=_mark(request), new=hash_token(token), now=datetime.now(UTC)
    )
    response.set_cookie(
        DEVICE_COOKIE,
        token,
        max_age=int(DEVICE_LIFETIME.total_seconds()),
        path=_PATH,
        secure=shared.settings.cookie_secure,
        httponly=True,
        samesite="strict",
    )


async def _show(
    request: Request,
    shared: Services,
    username: str,
    password: str,
    code: str | None,
    mark: bytes | None,
    now: datetime,
) -> int:
    # Noted before anything is compared, so that attempts made at once count one another.
    attempt = await note_attempt(
        shared.door, username, address=address_of(request), mark=mark, now=now
    )
    known = await credentials(shared.door, username)
    request.state.user_id = known.id if known else None  # for the audit, whether it is them or not
    async with shared.hashing:
        right, stronger = await asyncio.to_thread(
            check_password, password, known.password_hash if known else None
        )
    if known is None or not right:
        raise _failed(request, attempt, WRONG)
    if known.password_expires_at is not None and known.password_expires_at <= now:
        raise _failed(request, attempt, "This one-time password has run out. Ask for another one.")
    if known.second_factor:
        await _show_code(shared, known.id, code, now)
    await forgive(shared.door, attempt)
    if stronger is not None:
        await strengthen(shared.door, known, stronger)
    return known.id


async def _show_code(shared: Services, user_id: int, code: str | None, now: datetime) -> None:
    if not code:
        raise CodeMissing
    if not await take_code(shared.door, read_keys(shared.settings), user_id, code, now):
        _log.info("code_refused", user=user_id)
        raise CodeMissing("The code is wrong, used already, or too old. Send the next one.")


def _failed(request: Request, attempt: Attempt, why: str) -> Unauthenticated:
    _log.info("login_failed", address=address_of(request), known_device=attempt.mark is not None)
    return Unauthenticated(why)


def _mark(request: Request) -> bytes | None:
    token = request.cookies.get(DEVICE_COOKIE)
    return hash_token(token) if token else None
