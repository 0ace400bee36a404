"""Who residents and their relatives are: numbers masked, in full only on purpose, and searched."""

from datetime import date, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Response
from pydantic import AfterValidator, BaseModel, StringConstraints, model_validator

from anxin.config import Settings
from anxin.db import people as stored
from anxin.db.people import Found, Identity, Relative
from anxin.db.residents import Resident, resident
from anxin.id_card import Fault, IdCard, masked_id_card, masked_phone, read_id_card
from anxin.keys import read_keys
from anxin.logs import log
from anxin.notify.notice import initials
from anxin.notify.phone import FAULT, plain_number
from api.answers import Page, answer
from api.auth import Grant, confirmed, may
from api.fields import Body, Id, Name, Text
from api.permissions import Right
from api.problems import Unusable
from api.services import Db, Shared

MOST_FOUND: Final = 50

router = APIRouter(tags=["people"])
_log = log(__name__)


def disclosing(right: Right) -> Any:  # noqa: ANN401  # what FastAPI's Depends returns
    """Return the dependency of every route that hands out what is masked elsewhere.

    The password must have been shown within the last ten minutes.
    """

    async def grant(granted: Annotated[Grant, confirmed(right)]) -> Grant:
        _log.info("disclosing", user=granted.user.user_id, right=right)
        return granted

    return Depends(grant)


def _phone(text: str) -> str:
    number = plain_number(text)
    if number is None:
        raise ValueError(FAULT)
    return number


Phone = Annotated[Text, StringConstraints(max_length=40), AfterValidator(_phone)]
CardText = Annotated[Text, StringConstraints(max_length=40)]
Relation = Annotated[Name, StringConstraints(max_length=50)]


class IdentityChange(Body):
    """The numbers to store; null removes one."""

    id_card: CardText | None = None
    phone: Phone | None = None


class SeenIdentity(BaseModel):
    """A resident's numbers; `differs` names what the ID card says otherwise than the record."""

    id_card: str | None
    phone: str | None
    differs: list[Literal["born", "sex"]]


class NewRelative(Body):
    """Somebody who answers for a resident; a guardian may give consent."""

    name: Name
    relation: Relation
    phone: Phone | None = None
    guardian: bool = False


class SeenRelative(BaseModel):
    """A relative; name and number masked."""

    id: UUID
    relation: str
    guardian: bool
    name: str
    phone: str | None
    created_at: datetime


class Disclosure(SeenIdentity):
    """Numbers and names in full."""

    relatives: list[SeenRelative]


class Search(Body):
    """An ID-card or a telephone number, one of both, whole."""

    id_card: CardText | None = None
    phone: Phone | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.id_card is None) == (self.phone is None):
            raise ValueError("Give id_card or phone, not both.")
        return self


@router.get("/residents/{resident_id}/identity", response_model=SeenIdentity)
async def get_identity(
    resident_id: Id, grant: Annotated[Grant, may("people.read")], shared: Shared, database: Db
) -> Response:
    """Return a resident's ID-card and telephone number, masked."""
    who = await resident(database, grant.scope, int(resident_id))
    keys = read_keys(shared.settings)
    found = await stored.identity(database, grant.scope, keys, int(resident_id))
    return answer(_masked(found, who, shared.settings))


@router.put("/residents/{resident_id}/identity", response_model=SeenIdentity)
async def put_identity(
    resident_id: Id,
    body: IdentityChange,
    grant: Annotated[Grant, may("people.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Store the given numbers, sealed; an ID card is checked, and compared with the record."""
    values = body.model_dump(exclude_unset=True)
    if body.id_card is not None:
        values["id_card"] = _card(body.id_card, shared.settings).number
    keys = read_keys(shared.settings)
    await stored.set_identity(database, grant.scope, keys, int(resident_id), values)
    who = await resident(database, grant.scope, int(resident_id))
    found = await stored.identity(database, grant.scope, keys, int(resident_id))
    return answer(_masked(found, who, shared.settings))


@router.post("/residents/{resident_id}/identity/reveal", response_model=Disclosure)
async def reveal_identity(
    resident_id: Id,
    grant: Annotated[Grant, disclosing("people.identify")],
    shared: Shared,
    database: Db,
) -> Response:
    """Return a resident's numbers and relatives in full; who asked is recorded."""
    who = await resident(database, grant.scope, int(resident_id))
    keys = read_keys(shared.settings)
    found = await stored.identity(database, grant.scope, keys, int(resident_id))
    relatives = await stored.relatives(database, grant.scope, keys, int(resident_id))
    return answer(
        {
            "id_card": found.id_card,
            "phone": found.phone,
            "differs": _differs(found, who, shared.settings),
            "relatives": relatives,
        },
        headers={"cache-control": "no-store"},
    )


@router.get("/residents/{resident_id}/relatives", response_model=Page[SeenRelative])
async def list_relatives(
    resident_id: Id, grant: Annotated[Grant, may("people.read")], shared: Shared, database: Db
) -> Response:
    """Return who answers for a resident, names and numbers masked."""
    keys = read_keys(shared.settings)
    found = await stored.relatives(database, grant.scope, keys, int(resident_id))
    return answer({"items": [_masked_relative(one) for one in found], "next": None})


@router.post(
    "/residents/{resident_id}/relatives",
    response_model=SeenRelative,
    status_code=HTTPStatus.CREATED,
)
async def add_relative(
    resident_id: Id,
    body: NewRelative,
    grant: Annotated[Grant, may("people.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Add somebody who answers for a resident; name and number are sealed."""
    added = await stored.add_relative(
        database,
        grant.scope,
        read_keys(shared.settings),
        int(resident_id),
        name=body.name,
        relation=body.relation,
        phone=body.phone,
        guardian=body.guardian,
    )
    return answer(_masked_relative(added), HTTPStatus.CREATED)


@router.delete(
    "/residents/{resident_id}/relatives/{relative_id}", status_code=HTTPStatus.NO_CONTENT
)
async def remove_relative(
    resident_id: Id,
    relative_id: UUID,
    grant: Annotated[Grant, may("people.write")],
    database: Db,
) -> Response:
    """Remove somebody who answered for a resident."""
    await stored.remove_relative(database, grant.scope, int(resident_id), relative_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/people/search", response_model=Page[Found])
async def search_people(
    body: Search, grant: Annotated[Grant, may("people.read")], shared: Shared, database: Db
) -> Response:
    """Return whose number this is: residents of the own scope, by their own or a relative's.

    The number stands in the body, so that no address or log shows it.
    """
    card = None if body.id_card is None else _card(body.id_card, shared.settings).number
    found = await stored.find(
        database,
        grant.scope,
        read_keys(shared.settings),
        id_card=card,
        phone=body.phone,
        limit=MOST_FOUND,
    )
    return answer({"items": found, "next": None})


def _card(text: str, settings: Settings) -> IdCard:
    card = read_id_card(text, _today(settings))
    if isinstance(card, Fault):
        raise Unusable(f"{card.en} {card.zh}")
    return card


def _today(settings: Settings) -> date:
    return datetime.now(ZoneInfo(settings.timezone)).date()


def _masked(found: Identity, who: Resident, settings: Settings) -> dict[str, Any]:
    return {
        "id_card": found.id_card and masked_id_card(found.id_card),
        "phone": found.phone and masked_phone(found.phone),
        "differs": _differs(found, who, settings),
    }


def _masked_relative(one: Relative) -> dict[str, Any]:
    return {
        "id": one.id,
        "relation": one.relation,
        "guardian": one.guardian,
        "name": initials(one.name),
        "phone": one.phone and masked_phone(one.phone),
        "created_at": one.created_at,
    }


def _differs(found: Identity, who: Resident, settings: Settings) -> list[str]:
    """Return which of the resident's fields say otherwise than the ID card."""
    if found.id_card is None:
        return []
    card = read_id_card(found.id_card, _today(settings))
    if isinstance(card, Fault):
        return []
    says: dict[str, tuple[object, object]] = {
        "born": (who.born, card.born),
        "sex": (None if who.sex == "unknown" else who.sex, card.sex),
    }
    return [name for name, (ours, theirs) in says.items() if ours is not None and ours != theirs]
