"""Users: an admin makes any, a supervisor those of families."""

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import StringConstraints

from anxin.db import users as stored
from anxin.db.users import Role, User
from anxin.passwords import hash_password
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.fields import Body, Id, Username, number
from api.permissions import MANAGED_ROLES, Forbidden
from api.problems import Unusable
from api.services import Db, Shared

router = APIRouter(prefix="/users", tags=["users"])

Password = Annotated[str, StringConstraints(min_length=8, max_length=256)]


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
