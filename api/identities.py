"""Who a user is at the providers of identities: linked by an administrator, never by itself."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, StringConstraints

from anxin.db import identities as stored
from api.answers import Page, answer
from api.auth import Grant, confirmed, may
from api.fields import Body, Id
from api.permissions import MANAGED_ROLES
from api.services import Db, Shared

router = APIRouter(prefix="/users", tags=["users"])


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("A subject is printable.")
    return text


class NewIdentity(Body):
    """Who a user is at a provider: its subject, exactly as the page after a login shows it."""

    provider: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
    subject: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
        AfterValidator(_printable),
    ]


class Identity(BaseModel):
    """Who a user is at a provider, since when and by whom it is linked."""

    id: str
    provider: str
    issuer: str
    subject: str
    linked_by: str | None
    linked_at: str
    used_at: str | None


@router.get("/{user_id}/identities", response_model=Page[Identity])
async def list_identities(
    user_id: Id, grant: Annotated[Grant, may("administer")], database: Db
) -> Response:
    """Return by whom a user can log in beside its password."""
    roles = MANAGED_ROLES[grant.user.role]
    found = await stored.identities_of(database, grant.scope, roles, int(user_id))
    return answer({"items": found, "next": None})


@router.post("/{user_id}/identities", response_model=Identity, status_code=HTTPStatus.CREATED)
async def link_identity(
    user_id: Id,
    body: NewIdentity,
    grant: Annotated[Grant, confirmed("administer")],
    shared: Shared,
    database: Db,
) -> Response:
    """Link an identity: whoever logs in by it is this user from now on."""
    offer = shared.providers[body.provider]
    made = await stored.link(
        database,
        grant.scope,
        MANAGED_ROLES[grant.user.role],
        {
            "user_id": int(user_id),
            "provider": offer.name,
            "issuer": offer.provider.issuer,
            "subject": offer.provider.subject(body.subject),
            "linked_by": grant.user.user_id,
        },
    )
    return answer(made, HTTPStatus.CREATED)


@router.delete("/{user_id}/identities/{identity_id}", status_code=HTTPStatus.NO_CONTENT)
async def unlink_identity(
    user_id: Id,
    identity_id: Id,
    grant: Annotated[Grant, confirmed("administer")],
    shared: Shared,
    database: Db,
) -> Response:
    """Unlink an identity; every session of the user ends."""
    await stored.unlink(
        database, grant.scope, MANAGED_ROLES[grant.user.role], int(user_id), int(identity_id)
    )
    shared.hub.look_again()
    return Response(status_code=HTTPStatus.NO_CONTENT)
