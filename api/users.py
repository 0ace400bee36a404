"""Users: an admin makes any, a supervisor those of families."""

import asyncio
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, StringConstraints

from anxin.db import users as stored
from anxin.db.sessions import OwnSession, sessions_of
from anxin.db.users import Role, User
from anxin.logs import log
from anxin.passwords import LONGEST, hash_password, one_time_password
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, confirmed, may
from api.fields import Body, Id, Username, number
from api.permissions import MANAGED_ROLES, Forbidden
from api.problems import Unusable
from api.services import Db, Shared

router = APIRouter(prefix="/users", tags=["users"])
_log = log(__name__)

SHORTEST_GIVEN: Final = 8
"""Of a password that is given to somebody; whoever chooses one chooses a longer one."""
ONE_TIME: Final = timedelta(hours=72)
"""So long a one-time password is good."""
Password = Annotated[str, StringConstraints(min_length=SHORTEST_GIVEN, max_length=LONGEST)]


class NewUser(Body):
    """A user; staff other than an admin works at a place and below."""

    username: Username
    password: Password
    role: Role
    place_id: Id | None = None


class UserChange(Body):
    """A new password, or whether the user is shut out. Either ends its sessions."""

    password: Password | None = None
    disabled: bool | None = None


@router.get("", response_model=Page[User])
async def list_users(
    grant: Annotated[Grant, may("users.read")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return the users whom the caller manages."""
    roles = MANAGED_ROLES[grant.user.role]
    found = await stored.users(
        database, grant.scope, roles, after=serial_after(after) or 0, limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


@router.post("", response_model=User, status_code=HTTPStatus.CREATED)
async def create_user(
    body: NewUser, grant: Annotated[Grant, may("users.write")], shared: Shared, database: Db
) -> Response:
    """Add a user."""
    if body.role not in MANAGED_ROLES[grant.user.role]:
        raise Forbidden(f"The role {grant.user.role} may not make users of the role {body.role}.")
    place_id = number(body.place_id) or grant.user.place_id
    if place_id is None and body.role not in ("admin", "family"):
        raise Unusable(f"The role {body.role} needs a place_id: where it works, and below.")
    async with shared.hashing:
        hashed = await asyncio.to_thread(hash_password, body.password)
    made = await stored.create_user(
        database,
        grant.scope,
        username=body.username,
        password_hash=hashed,
        role=body.role,
        place_id=place_id,
    )
    return answer(made, HTTPStatus.CREATED)


@router.patch("/{user_id}", response_model=User)
async def change_user(
    user_id: Id,
    body: UserChange,
    grant: Annotated[Grant, may("users.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Set a new password, or shut a user out and let it in again."""
    hashed = None
    if body.password is not None:
        async with shared.hashing:
            hashed = await asyncio.to_thread(hash_password, body.password)
    changed = await stored.change_user(
        database,
        grant.scope,
        MANAGED_ROLES[grant.user.role],
        int(user_id),
        password_hash=hashed,
        disabled=body.disabled,
    )
    shared.hub.look_again()
    return answer(changed)


class OneTimePassword(BaseModel):
    """Good for one thing: to log in and choose a password; shown here only."""

    password: str
    expires_at: datetime


@router.post("/{user_id}/password", response_model=OneTimePassword)
async def reset_password(
    user_id: Id,
    grant: Annotated[Grant, confirmed("users.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Give a user a one-time password in place of the forgotten one; its sessions end."""
    roles = MANAGED_ROLES[grant.user.role]
    # Who is none of one's own is told so before anything costly is done.
    await stored.user(database, grant.scope, roles, int(user_id))
    password, expires_at = one_time_password(), datetime.now(UTC) + ONE_TIME
    async with shared.hashing:
        hashed = await asyncio.to_thread(hash_password, password)
    await stored.reset_password(
        database, grant.scope, roles, int(user_id), password_hash=hashed, expires_at=expires_at
    )
    shared.hub.look_again()
    _log.info("password_reset", user=int(user_id), by=grant.user.user_id)
    body = {"password": password, "expires_at": expires_at}
    return answer(body, headers={"cache-control": "no-store"})


@router.get("/{user_id}/sessions", response_model=Page[OwnSession])
async def list_sessions(
    user_id: Id, grant: Annotated[Grant, confirmed("users.write")], database: Db
) -> Response:
    """Return where a user is logged in: address, device and last use."""
    await stored.user(database, grant.scope, MANAGED_ROLES[grant.user.role], int(user_id))
    found = await sessions_of(database, int(user_id), grant.user.session_id)
    return answer({"items": found, "next": None})


@router.delete("/{user_id}/sessions", status_code=HTTPStatus.NO_CONTENT)
async def end_sessions(
    user_id: Id, grant: Annotated[Grant, confirmed("users.write")], shared: Shared, database: Db
) -> Response:
    """End every session of a user; its streams are closed."""
    await stored.end_sessions(database, grant.scope, MANAGED_ROLES[grant.user.role], int(user_id))
    shared.hub.look_again()
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.delete("/{user_id}/totp", status_code=HTTPStatus.NO_CONTENT)
async def end_second_factor(
    user_id: Id, grant: Annotated[Grant, confirmed("users.write")], shared: Shared, database: Db
) -> Response:
    """Take a lost second factor off a user; its sessions end."""
    await stored.end_factor(database, grant.scope, MANAGED_ROLES[grant.user.role], int(user_id))
    shared.hub.look_again()
    _log.info("second_factor_taken_off", user=int(user_id), by=grant.user.user_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)
