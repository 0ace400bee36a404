"""One's own account: where one is logged in, the password, the second factor."""

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, StringConstraints

from anxin import qr
from anxin.db import accounts as stored
from anxin.db.sessions import OwnSession, end_own, limit, sessions_of
from anxin.errors import NotFound
from anxin.keys import read_keys
from anxin.logs import log
from anxin.passwords import LONGEST, hash_password, weakness
from anxin.totp import new_recovery_codes, new_secret, otpauth_uri, secret_text
from api.answers import Page, answer
from api.auth import AnySession, Code, ConfirmedAny, Current, Renewed, Shown, renewed, show_again
from api.fields import Body, Id
from api.problems import Unusable, WeakPassword
from api.services import Db, Shared, needing_totp

router = APIRouter(prefix="/me", tags=["accounts"])
_log = log(__name__)


@router.get("/sessions", response_model=Page[OwnSession])
async def list_own_sessions(user: Current, database: Db) -> Response:
    """Return where one is logged in: address, device and last use."""
    found = await sessions_of(database, user.user_id, user.session_id)
    return answer({"items": found, "next": None})


@router.delete("/sessions", status_code=HTTPStatus.NO_CONTENT)
async def end_other_sessions(user: Current, shared: Shared) -> Response:
    """End every session of one's own but this one; their streams are closed."""
    await end_own(shared.door, user.user_id, user.session_id, None)
    shared.hub.look_again()
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.delete("/sessions/{session_id}", status_code=HTTPStatus.NO_CONTENT)
async def end_own_session(session_id: Id, user: Current, shared: Shared) -> Response:
    """End one session of one's own; its streams are closed."""
    if not await end_own(shared.door, user.user_id, user.session_id, int(session_id)):
        raise NotFound(f"You have no session {session_id}.")
    shared.hub.look_again()
    return Response(status_code=HTTPStatus.NO_CONTENT)


class NewPassword(Body):
    """One's password, and the new one; `totp` where there is a second factor."""

    password: Shown
    new: Annotated[str, StringConstraints(max_length=LONGEST)]
    totp: Code | None = None


@router.post("/password", response_model=Renewed)
async def change_password(
    body: NewPassword, user: AnySession, shared: Shared, request: Request
) -> Response:
    """Choose another password: at least 10 characters, none of the commonest.

    Every other session ends, and this one goes on with another token. 422 says what is wrong with
    the new one; a wrong old one is answered 403.
    """
    why = "old" if body.new == body.password else weakness(body.new, user.username)
    if why is not None:
        raise WeakPassword(why)
    await show_again(request, shared, user, body.password, body.totp)
    async with shared.hashing:
        hashed = await asyncio.to_thread(hash_password, body.new)
    await stored.set_password(shared.door, user.user_id, hashed)
    await end_own(shared.door, user.user_id, user.session_id, None)
    _log.info("password_changed", user=user.user_id)
    return await renewed(shared, user)


class BegunFactor(BaseModel):
    """A second factor that does not hold yet; the secret is shown here only."""

    secret: str
    uri: str
    qr: str
    """The same as a picture for an authenticator: SVG."""


@router.post("/totp", response_model=BegunFactor, status_code=HTTPStatus.CREATED)
async def begin_second_factor(user: ConfirmedAny, shared: Shared) -> Response:
    """Begin a second factor: scan the code with an authenticator, then confirm its first number."""
    secret = new_secret()
    await stored.begin_factor(shared.door, read_keys(shared.settings), user.user_id, secret)
    uri = otpauth_uri(secret, user.username)
    return answer(
        {"secret": secret_text(secret), "uri": uri, "qr": qr.svg(uri)},
        HTTPStatus.CREATED,
        {"cache-control": "no-store"},
    )


class FirstCode(Body):
    """What the authenticator shows."""

    code: Code


class HeldFactor(Renewed):
    """A second factor that holds from now on; the recovery codes are shown here only."""

    recovery_codes: list[str]
    """Each stands once for a code, if the telephone is lost. Keep them elsewhere."""


@router.post("/totp/confirm", response_model=HeldFactor)
async def confirm_second_factor(body: FirstCode, user: ConfirmedAny, shared: Shared) -> Response:
    """Let the second factor hold: logins need its code from now on."""
    keys, now = read_keys(shared.settings), datetime.now(UTC)
    if not await stored.confirm_factor(shared.door, keys, user.user_id, body.code, now):
        raise Unusable(
            "This is not the code of now. Check that the clocks of telephone and platform are "
            "right, and send the next one."
        )
    codes = new_recovery_codes()
    await stored.keep_recovery_codes(shared.door, user.user_id, codes)
    _log.info("second_factor_holds", user=user.user_id)
    return await renewed(shared, user, recovery_codes=codes)


@router.delete("/totp", status_code=HTTPStatus.NO_CONTENT)
async def end_second_factor(user: ConfirmedAny, shared: Shared) -> Response:
    """Remove one's second factor; where the role needs one, the sessions wait for a new one."""
    if not await stored.end_factor(shared.door, user.user_id):
        raise NotFound("You have no second factor.")
    await limit(shared.door, user.user_id, needing=needing_totp(shared.settings))
    shared.hub.look_again()
    _log.info("second_factor_removed", user=user.user_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)
