"""What the routes of one process share, and how a route asks for it."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from anxin.config import Settings
from anxin.db.pool import Database
from api.live import Hub
from api.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that live as long as the process."""

    settings: Settings
    database: Database
    hub: Hub
    metrics: Metrics
    # Argon2 takes 64 MiB and a core: more than a few at once would starve everything else.
    hashing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    # Logins that are being slowed down; more than so many are refused.
    delayed: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(100))


def services(connection: HTTPConnection) -> Services:
    """Return what this application was started with."""
    shared: Services = connection.app.state.services
    return shared


def _database(connection: HTTPConnection) -> Database:
    return services(connection).database


Shared = Annotated[Services, Depends(services)]
Db = Annotated[Database, Depends(_database)]
