"""Deliveries: notices claimed by the worker that sends them, their outcome, and their receipts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Final

from anxin.db.alarms import alarm
from anxin.db.pool import Connection, Database, blocks, translated
from anxin.db.scope import Scope

CLAIM_SECONDS: Final = 15.0
"""How long a claim holds: longer than the longest attempt to send."""
RECEIPT_SECONDS: Final = 20.0
"""After so long without a receipt the next way is tried."""
NEWS_AT_ONCE: Final = 200
SCREENS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Letter:
    """A claimed delivery: where to, and what its notice is made of."""

    id: int
    key: str
    alarm_id: int
    channel: str
    contact_id: int | None
    attempts: int
    created_at: datetime
    kind: str
    reason: str | None
    priority: int
    raised_at: datetime
    urgent: bool
    name: str | None
    places: list[str]
    address: str | None
    secret: str | None
    usable: bool


@dataclass(frozen=True, slots=True)
class SeenDelivery:
    """A delivery as people see it: no address, no secret."""

    id: str
    round: int
    step: int
    audience: str
    user_id: str | None
    username: str | None
    contact_id: str | None
    channel: str
    state: str
    due_at: datetime
    attempts: int
    created_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    displayed_at: datetime | None
    error: str | None


async def hold(connection: Connection, worker: int) -> bool:
    """Show that this worker lives for as long as the connection does; False: the number is taken.

    Asked again it tells that the connection is still there, or raises DatabaseUnavailable. The
    connection must be in autocommit mode.
    """
    async with translated():
        row = await (
            await connection.execute(blocks("deliveries")["hold"], {"worker": worker})
        ).fetchone()
    return bool(row and row["held"])


async def show_on_screens(database: Database) -> int:
    """Note what is due on screens as sent, as the stream has carried it; return how many."""
    return await database.execute(
        blocks("deliveries")["show"],
        {"most": SCREENS_AT_ONCE, "receipt_seconds": RECEIPT_SECONDS},
    )


async def claim(
    database: Database,
    worker: int,
    *,
    busy: Collection[int],
    urgent: bool,
    limit: int,
    local: time,
) -> list[Letter]:
    """Take up to `limit` deliveries that are due, urgent or calm; `busy` are in hand already.

    `local` is the time of the day by which quiet hours hold the calm ones back.
    """
    rows = await database.fetch(
        blocks("deliveries")["claim"],
        {
            "worker": worker,
            "busy": list(busy),
            "urgent": urgent,
            "limit": limit,
            "local": local,
            "claim_seconds": CLAIM_SECONDS,
            "receipt_seconds": RECEIPT_SECONDS,
        },
    )
    return [Letter(**row) for row in rows]


async def cancel_unwanted(database: Database) -> int:
    """Cancel what can wait and goes to relatives who want urgent notices only; return how many."""
    return await database.execute(blocks("deliveries")["unwanted"])


async def still_due(database: Database, worker: int, ids: Sequence[int]) -> set[int]:
    """Return which of these are still to be sent, not cancelled and still ours, and keep them."""
    rows = await database.fetch(
        blocks("deliveries")["still_due"],
        {"ids": list(ids), "worker": worker, "claim_seconds": CLAIM_SECONDS},
    )
    return {row["id"] for row in rows if row["state"] == "pending"}


async def note_sent(
    database: Database, ids: Sequence[int], *, provider_id: str | None, tells: bool, now: datetime
) -> None:
    """Note that one message carried these deliveries; `tells` says that a receipt may follow."""
    await database.execute(
        blocks("deliveries")["sent"],
        {
            "ids": list(ids),
            "provider_id": provider_id,
            "tells": tells,
            "now": now,
            "receipt_seconds": RECEIPT_SECONDS,
        },
    )


async def note_failed(
    database: Database, ids: Sequence[int], error: str, *, permanent: bool, rest_seconds: float
) -> None:
    """Note a failure: for good, or until another attempt after a rest."""
    await database.execute(
        blocks("deliveries")["failed"],
        {
            "ids": list(ids),
            "error": error,
            "permanent": permanent,
            "rest_seconds": rest_seconds,
        },
    )


async def put_off(database: Database, ids: Sequence[int], rest_seconds: float) -> None:
    """Give claimed deliveries back for a while, as if they had not been tried."""
    await database.execute(
        blocks("deliveries")["put_off"], {"ids": list(ids), "rest_seconds": rest_seconds}
    )


async def messages_in_a_minute(database: Database, contact_id: int) -> int:
    """Return how many messages a contact was sent in the last minute."""
    row = await database.fetch_one(
        blocks("deliveries")["messages_in_a_minute"], {"contact_id": contact_id}
    )
    return row["messages"] if row else 0


async def try_next_ways(database: Database) -> int:
    """Make the next way due where one gave no receipt in time or failed; return how many."""
    return await database.execute(blocks("deliveries")["next_ways"])


async def bridge_receipts(database: Database) -> int:
    """Carry new receipts of the stream over to the deliveries they answer; return how many."""
    return await database.execute(blocks("deliveries")["bridge"], {"most": NEWS_AT_ONCE})


async def note_reported(
    database: Database, channel: str, reports: Sequence[tuple[str, bool]]
) -> int:
    """Note reports of (the provider's id, whether it arrived); return how many were known."""
    return await database.execute(
        blocks("deliveries")["reported"],
        {
            "channel": channel,
            "provider_ids": [provider_id for provider_id, _ in reports],
            "arrived": [arrived for _, arrived in reports],
        },
    )


async def deliveries_of(
    database: Database, scope: Scope, alarm_id: int, *, after: int, limit: int
) -> list[SeenDelivery]:
    """Return every notice of an alarm, oldest first; raise NotFound."""
    await alarm(database, scope, alarm_id)
    rows = await database.fetch(
        blocks("deliveries")["of_alarm"], {"id": alarm_id, "after": after, "limit": limit}
    )
    return [SeenDelivery(**row) for row in rows]
