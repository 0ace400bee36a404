"""Consents of a resident: what is allowed, by whom, until when; and their withdrawal."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Final, Self

from fastapi import APIRouter, Response
from pydantic import Field, StringConstraints, model_validator

from anxin.db import consents as stored
from anxin.db.consents import Consent, Given, Giver, How, Purpose
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.fields import Body, Id, Moment, Name, number
from api.permissions import FamilyScope
from api.services import Db, Shared

CLOCK_SKEW: Final = timedelta(minutes=2)

router = APIRouter(prefix="/residents/{resident_id}/consents", tags=["consents"])

Relation = Annotated[Name, StringConstraints(max_length=50)]
Scopes = Annotated[list[FamilyScope], Field(min_length=1, max_length=6)]


class Circumstances(Body):
    """Who gave a consent, how and until when; a guardian says what he or she is to the elder."""

    given_by: Giver = "unstated"
    relation: Relation | None = None
    how: How = "unstated"
    given_at: Moment | None = None
    until_at: Moment | None = None

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if (self.given_by == "guardian") != (self.relation is not None):
            raise ValueError("relation: a guardian's to the elder, and nobody else's.")
        now = datetime.now(UTC)
        if self.given_at is not None and self.given_at > now + CLOCK_SKEW:
            raise ValueError("given_at: a consent is recorded once it was given.")
        if self.until_at is not None and self.until_at <= max(now, self.given_at or now):
            raise ValueError("until_at: lies in the future, or there is nothing to record.")
        return self


class NewConsent(Circumstances):
    """A consent; with the purpose `family` it names the user who may see."""

    purpose: Purpose
    user_id: Id | None = None
    scopes: Scopes

    @model_validator(mode="after")
    def _names_a_relative(self) -> Self:
        if (self.purpose == "family") != (self.user_id is not None):
            raise ValueError("user_id: belongs to the purpose family, and to no other.")
        return self


def given(
    body: Circumstances, *, purpose: Purpose, user_id: str | None, scopes: list[FamilyScope]
) -> Given:
    """Return a consent as the database takes it."""
    return Given(
        purpose=purpose,
        user_id=number(user_id),
        scopes=sorted(set(scopes)),
        given_by=body.given_by,
        relation=body.relation,
        how=body.how,
        given_at=body.given_at,
        until_at=body.until_at,
    )


@router.get("", response_model=Page[Consent])
async def list_consents(
    resident_id: Id,
    grant: Annotated[Grant, may("family.write")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return every consent of a resident that was ever recorded, newest first."""
    found = await stored.consents(
        database, grant.scope, int(resident_id), before=serial_after(after), limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


@router.post("", response_model=Consent, status_code=HTTPStatus.CREATED)
async def record_consent(
    resident_id: Id,
    body: NewConsent,
    grant: Annotated[Grant, may("family.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Record a consent beside those that there are; what a relative may see follows at once."""
    recorded = await stored.record_consent(
        database,
        grant.scope,
        int(resident_id),
        given(body, purpose=body.purpose, user_id=body.user_id, scopes=body.scopes),
        by=grant.user.user_id,
    )
    shared.hub.look_again()
    return answer(recorded, HTTPStatus.CREATED)


@router.delete("/{consent_id}", status_code=HTTPStatus.NO_CONTENT)
async def withdraw_consent(
    resident_id: Id,
    consent_id: Id,
    grant: Annotated[Grant, may("family.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Withdraw a consent; the record of it stays, and open streams show nothing of it any more."""
    await stored.withdraw_consent(
        database, grant.scope, int(resident_id), int(consent_id), by=grant.user.user_id
    )
    shared.hub.look_again()
    return Response(status_code=HTTPStatus.NO_CONTENT)
