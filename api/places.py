"""Places: the tree from district to bed."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Response
from pydantic import StringConstraints

from anxin.db import places as stored
from anxin.db.places import Place, PlaceKind
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.fields import Body, Id, Name, number
from api.problems import Unusable
from api.services import Db

router = APIRouter(prefix="/places", tags=["places"])

STATIONS: Final[tuple[PlaceKind, ...]] = ("district", "town", "village", "facility")
"""Places whose telephone relatives may be given; a home's is its resident's own."""

Phone = Annotated[str, StringConstraints(pattern=r"^\+?[0-9][0-9 -]{2,24}$")]


class NewPlace(Body):
    """A place below `parent_id`; only who sees everything may leave that out."""

    parent_id: Id | None = None
    kind: PlaceKind
    name: Name
    phone: Phone | None = None


class PlaceChange(Body):
    """Another name, or where relatives may call; null takes the telephone away."""

    name: Name | None = None
    phone: Phone | None = None


@router.get("", response_model=Page[Place])
async def list_places(
    grant: Annotated[Grant, may("places.read")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return the caller's places, parents before children made later."""
    found = await stored.places(
        database, grant.scope, after=serial_after(after) or 0, limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


@router.get("/{place_id}", response_model=Place)
async def get_place(
    place_id: Id, grant: Annotated[Grant, may("places.read")], database: Db
) -> Response:
    """Return one place."""
    return answer(await stored.place(database, grant.scope, int(place_id)))


@router.post("", response_model=Place, status_code=HTTPStatus.CREATED)
async def create_place(
    body: NewPlace, grant: Annotated[Grant, may("places.write")], database: Db
) -> Response:
    """Add a place."""
    if body.phone is not None:
        _may_be_called(body.kind)
    made = await stored.create_place(
        database,
        grant.scope,
        parent_id=number(body.parent_id),
        kind=body.kind,
        name=body.name,
        phone=body.phone,
    )
    return answer(made, HTTPStatus.CREATED)


@router.patch("/{place_id}", response_model=Place)
async def change_place(
    place_id: Id,
    body: PlaceChange,
    grant: Annotated[Grant, may("places.write")],
    database: Db,
) -> Response:
    """Change the name or the telephone of a place."""
    values: dict[str, Any] = body.model_dump(exclude_unset=True)
    if body.phone is not None:
        _may_be_called((await stored.place(database, grant.scope, int(place_id))).kind)
    return answer(await stored.change_place(database, grant.scope, int(place_id), values))


def _may_be_called(kind: PlaceKind) -> None:
    if kind not in STATIONS:
        raise Unusable(f"`phone` is that of a station: of a {', '.join(STATIONS)}.")
