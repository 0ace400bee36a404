"""Backups: which there are, how old the newest is, and whether it was read again."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel

from anxin.db.backups import backups
from api.answers import Page, answer
from api.auth import Grant, may
from api.services import Db

router = APIRouter(tags=["operation"])
MOST_SHOWN: Final = 100


class SeenBackup(BaseModel):
    """A backup that was made; `verified_at`: when every byte was read again, and was whole."""

    id: str
    made_at: datetime
    file: str
    bytes: int
    rows: int
    tables: int
    encrypted: bool
    version: str
    verified_at: datetime


@router.get("/backups", response_model=Page[SeenBackup])
async def list_backups(_: Annotated[Grant, may("administer")], database: Db) -> Response:
    """Return the last hundred backups that `anxin backup` has made, newest first."""
    return answer({"items": await backups(database, limit=MOST_SHOWN), "next": None})
