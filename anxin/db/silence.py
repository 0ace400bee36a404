"""Loss of monitoring: which devices are not heard, and when the platform itself was deaf."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from psycopg.rows import DictRow

from anxin.db.pool import Connection, Database, blocks

Monitoring = Literal["present", "absent", "network-error", "sensor-error", "undeployed"]
"""How a device is being heard; what is not told of presence counts as present."""

DEAF_SECONDS: Final = 60
"""So long nobody may listen to devices before it is an alarm of its own."""
DEAF_TOLD_SECONDS: Final = 600
"""So long after it the alarm's condition stays, for an outage too short to be seen while it was."""
LEAST_PAUSES: Final = 8
"""A device's interval is learned from no fewer."""

_SQL = blocks("silence")


@dataclass(frozen=True, slots=True)
class Silence:
    """What one look found; all rows as the queries of `silence.sql` name their columns.

    `behind`: per key of a missed gateway, `(device id, care level)`; `sizes`: per place,
    `(patience in seconds, devices)`; `deaf`: spells in which the platform heard nobody.
    """

    devices: Sequence[Mapping[str, Any]]
    behind: Mapping[int, Sequence[tuple[str, int]]]
    sizes: Mapping[int, Sequence[tuple[int, int]]]
    deaf: Sequence[Mapping[str, Any]]


async def note_listening(database: Database, *, kept: bool) -> None:
    """Note that ingest hears devices now; `kept`: while this failed, the spool kept what came."""
    await database.execute(_SQL["note_listening"], {"kept": kept})


async def look_for_silence(connection: Connection) -> Silence:
    """Return who is missed, at the time of the connection's transaction."""

    async def rows(name: str, parameters: Mapping[str, Any] | None = None) -> list[DictRow]:
        return await (await connection.execute(_SQL[name], parameters)).fetchall()

    devices = await rows("silent")
    missed = [one for one in devices if one["missed"]]
    behind: dict[int, list[tuple[str, int]]] = {}
    gateways = [one["device_key"] for one in missed if one["kind"] == "gateway"]
    if gateways:
        for row in await rows("behind", {"gateways": gateways}):
            one = (row["device_id"], row["care_level"])
            behind.setdefault(row["gateway_key"], []).append(one)
    sizes: dict[int, list[tuple[int, int]]] = {}
    sites = sorted({one["site"] for one in missed if one["site"] is not None})
    if sites:
        for row in await rows("site_sizes", {"sites": sites}):
            sizes.setdefault(row["site"], []).append((row["patience"], row["devices"]))
    deaf = await rows("deaf", {"seconds": DEAF_SECONDS, "told": DEAF_TOLD_SECONDS})
    return Silence(devices, behind, sizes, deaf)


async def learn_intervals(database: Database, *, slice_: int, slices: int) -> int:
    """Learn how often the devices of one slice report; return for how many that changed."""
    return await database.execute(
        _SQL["learn_intervals"], {"slice": slice_, "slices": slices, "least": LEAST_PAUSES}
    )
