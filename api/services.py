"""What the routes of one process share, and how a route asks for it."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Final, get_args

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from anxin.config import Settings
from anxin.db.pool import Database
from anxin.db.sessions import hash_token
from anxin.db.users import Role
from anxin.errors import SettingError
from anxin.providers import Providers
from api.live import Hub
from api.metrics import Metrics
from api.recording import Recorder

COOKIE: Final = "anxin_session"


@dataclass(frozen=True, slots=True)
class Services:
    """The parts that live as long as the process."""

    settings: Settings
    database: Database
    """Acts on behalf of a session, and without one sees nothing: routes take it as `Db`."""
    door: Database
    """For what comes before a session is known, and for what the stream serves to many."""
    hub: Hub
    recorder: Recorder
    metrics: Metrics
    providers: Providers
    # Argon2 takes 64 MiB and a core: more than a few at once would starve everything else.
    hashing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))

    def stopped(self) -> str:
        """Return which part stopped by a defect, so that the process must be replaced, or ''."""
        parts = {"alarm stream": self.hub.alive, "audit": self.recorder.alive}
        return next((name for name, alive in parts.items() if not alive), "")


def needing_totp(settings: Settings) -> list[Role]:
    """Return the roles that need a second factor; raise SettingError for one that there is not."""
    named = [name.strip() for name in settings.require_totp.split(",") if name.strip()]
    if odd := [name for name in named if name not in get_args(Role)]:
        raise SettingError(
            f"ANXIN_REQUIRE_TOTP: {odd[0]!r} is no role. Roles are {', '.join(get_args(Role))}."
        )
    return [role for role in get_args(Role) if role in named]


def services(connection: HTTPConnection) -> Services:
    """Return what this application was started with."""
    shared: Services = connection.app.state.services
    return shared


def token_of(request: Request) -> tuple[str, bool]:
    """Return the token of a request and whether it came as a cookie; a header wins."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip(), False
    return request.cookies.get(COOKIE, ""), True


def _database(request: Request) -> Database:
    """Return the database as the session of this request sees it; of an unknown one, nothing."""
    token, _ = token_of(request)
    return services(request).database.on_behalf_of(hash_token(token))


Shared = Annotated[Services, Depends(services)]
Db = Annotated[Database, Depends(_database)]
