"""Whether this process is alive and ready, and its metrics."""

import asyncio
from http import HTTPStatus

from fastapi import APIRouter, Response

from anxin.alarms import PRIORITY_NUMBER
from anxin.db.alarms import open_by_priority
from anxin.db.migrate import pending
from anxin.db.users import rights
from anxin.errors import AnxinError, DatabaseUnavailable
from api.answers import answer
from api.permissions import check_rights
from api.problems import problem
from api.services import Shared

COUNT_TIMEOUT_S = 2.0

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz() -> Response:
    """Answer as long as the process does."""
    return answer({"status": "alive"})


@router.get("/readyz")
async def readyz(shared: Shared) -> Response:
    """Answer 200 when requests can be served: database there, schema current, nothing stopped."""
    try:
        waiting = await asyncio.to_thread(pending, shared.door.dsn)
        if not waiting:
            check_rights(await rights(shared.door))
    except AnxinError as error:
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
    if waiting:
        detail = f"The schema lacks {', '.join(waiting)}. Run: anxin migrate."
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
    stopped = shared.stopped()
    if stopped:
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, f"The {stopped} has stopped.")
    return answer({"status": "ready"})


@router.get("/metrics")
async def metrics(shared: Shared) -> Response:
    """Return the metrics of this process for Prometheus."""
    try:
        async with asyncio.timeout(COUNT_TIMEOUT_S):
            counts = await open_by_priority(shared.door)
    except (DatabaseUnavailable, TimeoutError):
        # Without a database there is no count: a stale one would be a lie.
        shared.metrics.open_alarms.clear()
    else:
        for priority, number in PRIORITY_NUMBER.items():
            shared.metrics.open_alarms.labels(priority).set(counts.get(number, 0))
    return Response(shared.metrics.text(), media_type="text/plain; version=0.0.4")
