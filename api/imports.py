"""Lists of people and devices taken over from files: looked at, mended, then stored whole."""

import asyncio
import base64
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from anxin.config import Settings
from anxin.db import imports as stored
from anxin.db.places import place
from anxin.imports import COLUMNS, Action, Kind, Row, Sheet, read_sheet
from anxin.keys import read_keys
from anxin.tables import Unreadable, read_table
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Grant, may
from api.fields import Body, Id, Text, number
from api.permissions import Right, scope_of
from api.problems import Unusable
from api.services import Db, Shared

router = APIRouter(prefix="/imports", tags=["imports"])

MOST_SHOWN: Final = 50
RowNumber = Annotated[int, Field(ge=1, le=1_000_000)]
Cell = Annotated[Text, StringConstraints(max_length=4000)]
NEEDED: Final[dict[Kind, tuple[Right, ...]]] = {
    "residents": ("residents.write", "people.write", "places.write"),
    "devices": ("devices.write",),
}
"""What somebody must be allowed to do one by one, to do it by a list."""


class NewImport(Body):
    """A file as base64: CSV (UTF-8, UTF-16 or GB18030) or XLSX, at most 8 MiB and 20,000 rows.

    `place_id` is where rows go that name no place; without it, the caller's own place.
    """

    kind: Kind
    name: Annotated[Text, StringConstraints(min_length=1, max_length=200)]
    content: str
    place_id: Id | None = None


class Mending(Body):
    """Other values for cells by row and field, and rows to leave out or to take in again."""

    cells: Annotated[dict[RowNumber, dict[str, Cell]], Field(max_length=1000)] = Field(
        default_factory=dict
    )
    left_out: Annotated[list[RowNumber], Field(max_length=20_000)] = Field(default_factory=list)
    put_back: Annotated[list[RowNumber], Field(max_length=20_000)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        known = {field for columns in COLUMNS.values() for field in columns}
        if odd := {field for row in self.cells.values() for field in row} - known:
            raise ValueError(f"cells: there is no field {min(odd)}.")
        return self


class SeenHeading(BaseModel):
    """A heading of the file and the field that it was taken for; null: the column is not used."""

    text: str
    field: str | None


class SeenImport(BaseModel):
    """A list; `counts` says of how many rows what becomes: create, change, same, fault, left_out.

    `done` rows are written, while it is being stored. It expires after a day.
    """

    id: UUID
    kind: Kind
    name: str
    place_id: str | None
    created_at: datetime
    expires_at: datetime
    columns: list[SeenHeading]
    counts: dict[Action, int]
    done: int
    applied_at: datetime | None


class SeenFault(BaseModel):
    """Why a cell cannot be used, in words; an empty `field` means the row."""

    field: str
    zh: str
    en: str


class SeenRow(BaseModel):
    """One row: its cells by field, and what becomes of it; `resident_id` of somebody known."""

    number: int
    cells: dict[str, str]
    action: Action
    resident_id: str | None
    device_id: str | None
    changes: list[str]
    faults: list[SeenFault]
    hints: list[SeenFault]


class NewSecret(BaseModel):
    """The secret of a new device, shown this once."""

    id: str
    secret: str


class Applied(SeenImport):
    """A list that was stored; `secrets` are of devices that were new, shown this once."""

    secrets: list[NewSecret]


_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": NewImport.model_json_schema()}},
    }
}


@router.post("", response_model=SeenImport, status_code=HTTPStatus.CREATED, openapi_extra=_BODY)
async def create_import(
    request: Request,
    grant: Annotated[Grant, may("imports.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Look through a file: which rows are new, which change somebody, which cannot be used and why.

    Nothing is stored yet. Rows are read at /imports/{id}/rows.
    """
    # Read here and not before: only who may import sends so much.
    body = _body(await request.body())
    for right in NEEDED[body.kind]:
        scope_of(grant.user, right)
    place_id = number(body.place_id) or grant.user.place_id
    if place_id is not None:
        await place(database, grant.scope, place_id)
    sheet = await asyncio.to_thread(_read, body)
    made = await stored.add_import(
        database,
        grant.scope,
        read_keys(shared.settings),
        sheet,
        name=body.name,
        place_id=place_id,
        user_id=grant.user.user_id,
        now=datetime.now(UTC),
        today=_today(shared.settings),
    )
    return answer(made, HTTPStatus.CREATED)


@router.get("", response_model=Page[SeenImport])
async def list_imports(_: Annotated[Grant, may("imports.write")], database: Db) -> Response:
    """Return one's own lists of the last day, newest first."""
    return answer({"items": await stored.imports(database, limit=MOST_SHOWN), "next": None})


@router.get("/{import_id}", response_model=SeenImport)
async def get_import(
    import_id: UUID, _: Annotated[Grant, may("imports.write")], database: Db
) -> Response:
    """Return one's own list, and while it is being stored how far that is."""
    return answer(await stored.import_(database, import_id))


@router.get("/{import_id}/rows", response_model=Page[SeenRow])
async def list_rows(
    import_id: UUID,
    _: Annotated[Grant, may("imports.write")],
    shared: Shared,
    database: Db,
    action: Annotated[Action | None, Query(description="Only rows of which this becomes.")] = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return the rows of a list and what becomes of each; none once it is stored."""
    found = await stored.rows_of(
        database,
        read_keys(shared.settings),
        import_id,
        action=action,
        after=serial_after(after) or 0,
        limit=limit + 1,
    )
    kind = (await stored.import_(database, import_id)).kind
    rows = [_seen(one, kind) for one in found]
    return page(rows, [one.number for one in found], limit)


@router.post("/{import_id}/mend", response_model=SeenImport)
async def mend_import(
    import_id: UUID,
    body: Mending,
    grant: Annotated[Grant, may("imports.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Correct cells or leave rows out, and look through the whole list again."""
    mended = await stored.mend(
        database,
        grant.scope,
        read_keys(shared.settings),
        import_id,
        cells=body.cells,
        left_out=body.left_out,
        put_back=body.put_back,
        today=_today(shared.settings),
    )
    return answer(mended)


@router.post("/{import_id}/apply", response_model=Applied)
async def apply_import(
    import_id: UUID,
    grant: Annotated[Grant, may("imports.write")],
    shared: Shared,
    database: Db,
) -> Response:
    """Store the whole list, or nothing of it; again, and it stays as it is."""
    done, secrets = await stored.apply_import(
        database,
        grant.scope,
        read_keys(shared.settings),
        import_id,
        today=_today(shared.settings),
    )
    values: dict[str, Any] = {name: getattr(done, name) for name in done.__slots__}
    return answer({**values, "secrets": secrets}, headers={"cache-control": "no-store"})


@router.delete("/{import_id}", status_code=HTTPStatus.NO_CONTENT)
async def drop_import(
    import_id: UUID, _: Annotated[Grant, may("imports.write")], database: Db
) -> Response:
    """Forget a list; what was stored of it stays."""
    await stored.drop_import(database, import_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _body(raw: bytes) -> NewImport:
    try:
        return NewImport.model_validate_json(raw)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError(
            [{**one, "loc": ("body", *one["loc"])} for one in faults]
        ) from error


def _read(body: NewImport) -> Sheet:
    try:
        content = base64.b64decode(body.content, validate=True)
    except ValueError as error:  # binascii.Error is one; letters beyond ASCII raise another
        raise Unusable("`content` is not base64.") from error
    try:
        return read_sheet(body.kind, read_table(content))
    except Unreadable as error:
        raise Unusable(str(error)) from error


def _seen(one: Row, kind: Kind) -> dict[str, Any]:
    return {
        "number": one.number,
        "cells": one.cells,
        "action": one.action,
        "resident_id": one.id if kind == "residents" else None,
        "device_id": one.id if kind == "devices" else None,
        "changes": one.changes,
        "faults": one.faults,
        "hints": one.hints,
    }


def _today(settings: Settings) -> date:
    return datetime.now(ZoneInfo(settings.timezone)).date()
