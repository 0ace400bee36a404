"""The application: every router, the parts that live as long as it does, and its edges."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI

from anxin.config import Settings
from anxin.db.pool import Database
from anxin.providers import Providers
from api import (
    accounts,
    alarms,
    audit,
    auth,
    backups,
    channels,
    consents,
    contacts,
    devices,
    enrolments,
    erasures,
    export,
    exports,
    family,
    health,
    identities,
    imports,
    ladders,
    limit_templates,
    pages,
    people,
    places,
    providers,
    quarantine,
    reports,
    residents,
    risk,
    roster,
    stations,
    stream,
    users,
    usual,
    visits,
    vitals,
)
from api.edge import Edge, read_origins
from api.live import QUEUE, TAIL, Hub
from api.metrics import Metrics
from api.problems import Problem, add_problem_handlers
from api.recording import Recorded, Recorder
from api.reference import add_reference
from api.services import Services, needing_totp

BASE = "/api/v1"


def create_app(
    settings: Settings, *, static: Path = pages.STATIC, queue: int = QUEUE, tail: int = TAIL
) -> FastAPI:
    """Return the application; `queue` and `tail` are the bounds of the alarm stream."""
    needing_totp(settings)  # a wrong setting is told at once
    metrics = Metrics()
    outside = Providers(settings)
    origins = read_origins(settings.cors_origins)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            Database(settings.database, role="anxin_api", application="anxin api") as database,
            Database(
                settings.database_door or settings.database,
                role="anxin_door",
                application="anxin api door",
            ) as door,
            Recorder(door) as recorder,
            Hub(door, metrics, recorder.showed, queue=queue, tail=tail) as hub,
            outside,
        ):
            app.state.services = Services(settings, database, door, hub, recorder, metrics, outside)
            yield

    app = FastAPI(
        title="Anxin 安心",
        version="1",
        description="Elder care: residents, devices, vital signs, alarms.",
        openapi_url=f"{BASE}/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        responses={
            "4XX": {"model": Problem, "description": "RFC 9457 problem."},
            "5XX": {"model": Problem, "description": "RFC 9457 problem."},
        },
    )
    app.state.static = static
    add_problem_handlers(app)
    base = APIRouter(prefix=BASE)
    for module in (
        auth, accounts, providers, places, residents, people, vitals, users, identities, devices,
        enrolments, alarms, quarantine, stream, stations, channels, consents, contacts, erasures,
        export, reports, roster, ladders, audit, usual, visits, family, risk, imports,
        exports, limit_templates, backups,
    ):  # fmt: skip
        base.include_router(module.router)
    app.include_router(base)
    app.include_router(health.router)
    add_reference(app)
    app.include_router(pages.router)
    app.add_middleware(Recorded)
    app.add_middleware(
        Edge,
        metrics=metrics,
        https=settings.public_url.lower().startswith("https://"),
        origins=origins,
    )
    return app
