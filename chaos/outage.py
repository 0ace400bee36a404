"""`python -m chaos.outage`: how long an SOS takes to the wall through an outage of the database.

The database restarts and cannot be reached for a while. Meanwhile devices offer 60,000 readings,
which wait in the spool and in the devices; they drain once the database is back, while more people
press for help. An SOS of the outage is measured from the return of the database, one pressed
while the queue drains, from its press. Exit code 1 when one takes longer than 10 s.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Final

from anxin.db.pool import connect
from anxin.errors import AnxinError
from bench.population import Enrolled
from chaos.ledger import Ledger
from chaos.notices import Telephones
from chaos.platform import NotRecovered, Platform
from chaos.proxy import CALM, Weather
from chaos.publisher import Publisher, readings, sos
from chaos.staff import found
from chaos.viewer import Viewer

GOAL_SECONDS: Final = 10.0
_READINGS_A_MESSAGE: Final = 20
_PATIENCE_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.02
_STORED = b"SELECT count(*) AS count FROM telemetry"


@dataclass(slots=True)
class Outage:
    """What one outage showed."""

    offered: int
    queued: int = 0
    """Readings that were offered and not stored when the database came back."""
    acknowledged: int = 0
    """Messages that were acknowledged in the outage, on the disk of ingest."""
    drained_seconds: float = 0.0
    stored: int = 0
    in_outage_seconds: list[float] = field(default_factory=list)
    while_draining_seconds: list[float] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """True when every reading is stored and every SOS was on the wall in time."""
        slowest = max([*self.in_outage_seconds, *self.while_draining_seconds])
        return slowest <= GOAL_SECONDS and self.stored == self.offered


def main() -> int:
    """Run and print one table; 0 when every SOS was on the wall in time."""
    found_out: list[Outage] = []
    try:
        found_out.append(asyncio.run(suffer(_parser().parse_args())))
    except* AnxinError as errors:
        sys.stderr.writelines(f"chaos.outage: {error}\n" for error in errors.exceptions)
    for one in found_out:
        print(table(one))
    return 0 if found_out and found_out[0].kept else 1


async def suffer(arguments: argparse.Namespace) -> Outage:
    """Carry out one outage on a platform of its own."""
    outage = Outage(arguments.readings)
    dice = random.Random(arguments.seed)  # noqa: S311 - repeatable, not secret
    async with (
        Telephones() as telephones,
        Platform(arguments.http, arguments.mqtt) as platform,
        asyncio.TaskGroup() as tasks,
    ):
        town = await found(
            platform.dsn,
            telephones.address,
            steady=arguments.devices,
            buttons=2 * arguments.presses,
        )
        route = platform.routes["viewers"]
        walls = [
            Viewer(person, lambda: route.listen, takes=0.0, dice=dice)
            for person in town.people
            if person.post == "first"
        ]
        watching = [tasks.create_task(wall.run(), name=wall.sight.person.name) for wall in walls]
        await _until(lambda: all(wall.connected for wall in walls), "No wall is connected")
        with Ledger(platform.directory / "ledger.txt") as ledger:
            devices = _Devices(platform, ledger, tasks)
            early, late = town.buttons[: arguments.presses], town.buttons[arguments.presses :]
            await devices.connect([*town.steady, *town.buttons])
            pressed_early, back_at = await _away(devices, town.steady, early, arguments)
            outage.queued = outage.offered - await _stored(platform)
            outage.acknowledged = ledger.messages_acknowledged
            began = time.monotonic()
            pressed_late = await devices.press(late, over_seconds=2.0)
            expected = {*pressed_early, *pressed_late}
            await _until(lambda: expected <= _seen(walls).keys(), "An SOS is not on the wall")
            await _until_stored(platform, outage)
            outage.drained_seconds = time.monotonic() - began
            devices.close()
            await _until(lambda: not devices.pending, "Messages were not acknowledged")
        for task in watching:
            task.cancel()
        seen = _seen(walls)
        outage.in_outage_seconds = [
            (seen[device] - max(at, back_at)).total_seconds()
            for device, at in pressed_early.items()
        ]
        outage.while_draining_seconds = [
            (seen[device] - at).total_seconds() for device, at in pressed_late.items()
        ]
    return outage


def table(one: Outage) -> str:
    """Return what was found, as a table."""
    rows = [
        (f"SOS {when}", len(times), median(times), max(times))
        for when, times in (
            ("pressed in the outage, from the return of the database", one.in_outage_seconds),
            ("pressed while the queue drains, from the press", one.while_draining_seconds),
        )
    ]
    lines = [f"| {what} | {count} | {p50:.2f} | {most:.2f} |" for what, count, p50, most in rows]
    return f"""{one.queued:,} of {one.offered:,} readings waited when the database came back \
({one.acknowledged:,} messages were acknowledged by then); {one.stored:,} were stored \
{one.drained_seconds:.1f} s later.

| on the wall | presses | median s | longest s |
|---|---:|---:|---:|
{chr(10).join(lines)}"""


@dataclass(slots=True)
class _Devices:
    """Every device of this outage."""

    platform: Platform
    ledger: Ledger
    tasks: asyncio.TaskGroup
    by_id: dict[str, Publisher] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        return sum(publisher.pending for publisher in self.by_id.values())

    async def connect(self, enrolled: Sequence[Enrolled]) -> None:
        """Let every device connect: ingest lets only devices that it knows in during an outage."""
        address = self.platform.routes["devices"].listen
        target = (address.host, address.port)
        for device in enrolled:
            publisher = Publisher(device.id, device.secret, target, self.ledger)
            self.by_id[device.id] = publisher
            self.tasks.create_task(publisher.run(), name=device.id)
        await _until(
            lambda: all(publisher.connections for publisher in self.by_id.values()),
            "Not every device is connected",
        )

    def close(self) -> None:
        for publisher in self.by_id.values():
            publisher.close()

    async def press(
        self, buttons: Sequence[Enrolled], *, over_seconds: float
    ) -> dict[str, datetime]:
        """Press one button after the other and return when each was."""
        pressed = {}
        for button in buttons:
            pressed[button.id] = datetime.now(UTC)
            press = sos(button.id, "sos-0", time.time_ns() // 1_000_000)
            self.by_id[button.id].offer(press)
            await asyncio.sleep(over_seconds / len(buttons))
        return pressed


async def _away(
    devices: _Devices,
    steady: Sequence[Enrolled],
    buttons: Sequence[Enrolled],
    arguments: argparse.Namespace,
) -> tuple[dict[str, datetime], datetime]:
    """Take the database away, offer everything, press, and let it restart."""
    platform = devices.platform
    publishers = [devices.by_id[device.id] for device in steady]
    route = platform.routes["database"]
    route.set(Weather(refused=True))
    old = platform.ask_postgres_to_restart()
    pressing = asyncio.create_task(
        devices.press(buttons, over_seconds=arguments.away), name="presses"
    )
    rounds = arguments.readings // (_READINGS_A_MESSAGE * len(publishers))
    start_ms = time.time_ns() // 1_000_000 - rounds * _READINGS_A_MESSAGE
    for number in range(rounds):
        first_ms = start_ms + number * _READINGS_A_MESSAGE
        for publisher in publishers:
            times_ms = range(first_ms, first_ms + _READINGS_A_MESSAGE)
            publisher.offer(readings(publisher.device, times_ms))
        await asyncio.sleep(arguments.away / rounds)
    pressed = await pressing
    await platform.replaced("postgres", old)
    await platform.database_answers()
    route.set(CALM)
    return pressed, datetime.now(UTC)


def _seen(walls: Sequence[Viewer]) -> dict[str, datetime]:
    """Return by device when the first frame of its alarm came."""
    seen: dict[str, datetime] = {}
    for wall in walls:
        for frame in wall.sight.frames:
            seen.setdefault(frame.device, frame.at)
    return seen


async def _stored(platform: Platform) -> int:
    async with await connect(platform.dsn, application="anxin chaos") as database:
        row = await (await database.execute(_STORED)).fetchone()
    assert row is not None  # noqa: S101 - a count is one row
    return int(row["count"])


async def _until_stored(platform: Platform, outage: Outage) -> None:
    """Wait until every reading is stored, or too long: the table tells."""

    async def all_there() -> bool:
        outage.stored = await _stored(platform)
        return outage.stored >= outage.offered

    await _until(all_there, "Readings are missing")


async def _until(condition: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        answer = condition()
        if answer if isinstance(answer, bool) else await answer:
            return
        if time.monotonic() > deadline:
            raise NotRecovered(f"{what} after {_PATIENCE_SECONDS:.0f} s.")
        await asyncio.sleep(_POLL_SECONDS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos.outage", description=__doc__)
    parser.add_argument("--readings", type=int, default=60_000, help="that queue up (60,000)")
    parser.add_argument("--away", type=float, default=15.0, help="seconds of outage (15)")
    parser.add_argument("--presses", type=int, default=30, help="in and after the outage (30)")
    parser.add_argument("--devices", type=int, default=60, help="that report (60)")
    parser.add_argument("--seed", type=int, default=1, help="of the viewers' reconnections (1)")
    parser.add_argument("--http", default="127.0.0.1:0", help="refused when in use")
    parser.add_argument("--mqtt", default="127.0.0.1:0", help="refused when in use")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
