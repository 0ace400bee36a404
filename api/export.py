"""Export of one resident: everything that is stored, as a ZIP file made while it is sent."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from anxin.db.residents import resident
from anxin.export import archive
from anxin.keys import read_keys
from api.auth import Grant
from api.fields import Id
from api.people import disclosing
from api.services import Db, Shared

router = APIRouter(tags=["people"])

_ZIP: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get("/residents/{resident_id}/export", response_class=StreamingResponse, responses=_ZIP)
async def export_resident(
    resident_id: Id,
    grant: Annotated[Grant, disclosing("export")],
    shared: Shared,
    database: Db,
) -> StreamingResponse:
    """Return everything about a resident as a ZIP: JSON, CSV and a FHIR R4 Bundle; recorded."""
    await resident(database, grant.scope, int(resident_id))
    parts = archive(database, grant.scope, read_keys(shared.settings), int(resident_id))
    name = f"resident-{resident_id}-{datetime.now(UTC):%Y%m%d}.zip"
    headers = {
        "content-disposition": f'attachment; filename="{name}"',
        "cache-control": "no-store",
    }
    return StreamingResponse(parts, media_type="application/zip", headers=headers)
