"""Alarm limits by a name, to be set for many residents at once, inside a clinician's bounds."""

from http import HTTPStatus
from typing import Annotated, Literal, Self

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, model_validator

from anxin.db import limit_templates as stored
from anxin.db.limit_templates import LimitTemplate
from anxin.rules import LIMITS, SPO2_SCALE_2
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.fields import Body, Id, Name, number
from api.residents import Limits, check_limits
from api.services import Db

router = APIRouter(tags=["residents"])


class NewTemplate(Body):
    """Limits by a name; without `place_id` for everywhere, which only who sees all may say."""

    name: Name
    place_id: Id | None = None
    limits: Annotated[Limits, Field(min_length=1)]

    @model_validator(mode="after")
    def _inside_bounds(self) -> Self:
        check_limits(self.limits)
        return self


class Target(Body):
    """Whose limits become those of the template: these residents, or all of a place and below."""

    resident_ids: Annotated[list[Id], Field(max_length=1000)] | None = None
    place_id: Id | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.resident_ids is None) == (self.place_id is None):
            raise ValueError("Give resident_ids or place_id, not both.")
        return self


class Changed(BaseModel):
    """How many residents have other limits now."""

    changed: int


class SeenLimit(BaseModel):
    """A limit: what holds where nobody set another, and the bounds inside which it may be set."""

    default: float
    low: float
    high: float
    unit: str


@router.get("/limits", response_model=dict[str, SeenLimit])
async def list_limits(
    _: Annotated[Grant, may("limits.write")],
    spo2_scale: Annotated[
        Literal["1", "2"], Query(description="Of a resident: the defaults of their scale.")
    ] = "1",
) -> Response:
    """Return every limit by its name."""
    other = SPO2_SCALE_2 if spo2_scale == "2" else {}
    return answer(
        {
            name: msgspec.structs.replace(limit, default=other.get(name, limit.default))
            for name, limit in LIMITS.items()
        }
    )


@router.get("/limit-templates", response_model=Page[LimitTemplate])
async def list_templates(
    grant: Annotated[Grant, may("limits.write")],
    database: Db,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return the templates of the own places, of those around them, and for everywhere."""
    found = await stored.templates(
        database, grant.scope, after=serial_after(after) or 0, limit=limit + 1
    )
    return page(found, [int(one.id) for one in found], limit)


@router.post("/limit-templates", response_model=LimitTemplate, status_code=HTTPStatus.CREATED)
async def create_template(
    body: NewTemplate, grant: Annotated[Grant, may("limits.write")], database: Db
) -> Response:
    """Add a template."""
    place_id = number(body.place_id) or grant.user.place_id
    made = await stored.create_template(
        database, grant.scope, place_id=place_id, name=body.name, limits=body.limits
    )
    return answer(made, HTTPStatus.CREATED)


@router.delete("/limit-templates/{template_id}", status_code=HTTPStatus.NO_CONTENT)
async def drop_template(
    template_id: Id, grant: Annotated[Grant, may("limits.write")], database: Db
) -> Response:
    """Remove a template; limits that were set by it stay."""
    await stored.drop_template(database, grant.scope, int(template_id))
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/limit-templates/{template_id}/apply", response_model=Changed)
async def apply_template(
    template_id: Id,
    body: Target,
    grant: Annotated[Grant, may("limits.write")],
    database: Db,
) -> Response:
    """Set the limits of a template for residents, for all or none; limits it does not name stay."""
    changed = await stored.apply_template(
        database,
        grant.scope,
        int(template_id),
        resident_ids=None if body.resident_ids is None else [int(one) for one in body.resident_ids],
        place_id=number(body.place_id),
    )
    return answer({"changed": changed})
