"""`make chaos`: break everything in turn under load, and compare all books at the end.

Devices publish, residents press for help, staff and a relative watch the alarm stream and have
telephones. Processes are killed and frozen, networks break, the database restarts, a disk fills up.
Afterwards what was acknowledged, seen and told is compared with the database.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from anxin.errors import AnxinError
from chaos.crowd import TICK_SECONDS, Crowd
from chaos.faults import CLOCKS, Fault, Injected, inject, plan
from chaos.ledger import Book, Ledger, read
from chaos.notices import Telephones
from chaos.platform import NotRecovered, Platform
from chaos.report import Run, placed, report
from chaos.staff import Town, found
from chaos.stored import arrived, stored_rows, told_record
from chaos.telling import judge_telling, lateness
from chaos.verdict import judge
from chaos.viewer import Viewer

PAGE: Final = Path(__file__).parent.parent / "docs" / "reliability.md"
_RECOVERY_SECONDS: Final = 90.0
_DRAIN_SECONDS: Final = 90.0
_LAST_STEPS_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.2
_PRESSES_AT_A_FAULT: Final = 4


def main() -> int:
    """Run, print and write the page; 0 when every promise was kept."""
    arguments = _lengths(_parser().parse_args())
    runs: list[Run] = []
    try:
        runs.append(asyncio.run(chaos(arguments)))
    except* AnxinError as errors:
        for error in _leaves(errors):
            sys.stderr.write(f"chaos: {error}\n")
    if not runs:
        return 1
    section = report(runs[0], datetime.now(UTC))
    print(section)
    if arguments.write:
        PAGE.write_text(placed(PAGE.read_text("utf-8"), section), encoding="utf-8")
    return 0 if runs[0].kept else 1


async def chaos(arguments: argparse.Namespace) -> Run:
    """Carry out one run on a platform of its own."""
    run = Run(arguments.devices, arguments.rate, arguments.seed, arguments.hold)
    dice = random.Random(arguments.seed)  # noqa: S311 - repeatable, not secret
    async with (
        Telephones() as telephones,
        Platform(arguments.http, arguments.mqtt) as platform,
    ):
        faults = _planned(arguments, dice, platform, run)
        presses = int(100 + 3 * max(arguments.seconds, len(faults) * (arguments.hold + 6)))
        town = await found(
            platform.dsn, telephones.address, steady=arguments.devices, buttons=presses
        )
        book_path = arguments.ledger or platform.directory / "ledger.txt"
        with Ledger(book_path) as ledger:
            scene = _Scene(platform, town, ledger, arguments.rate, dice)
            async with scene.playing() as (crowd, viewers):
                await scene.steady_again(crowd, viewers)
                await _break_everything(scene, crowd, viewers, faults, arguments, run)
                run.messages = ledger.messages_acknowledged
                # The last presses still climb their ladder.
                await asyncio.sleep(_LAST_STEPS_SECONDS)
        ended_at = datetime.now(UTC)
        run.sent_again = crowd.sent_again
        with book_path.open(encoding="ascii") as lines:
            book = read(lines)
        await _all_drained(platform, book)
        record = await told_record(platform.dsn)
        sights = [viewer.sight for viewer in viewers]
        stored = await stored_rows(platform.dsn, "chaos")
        if any(one.fault in CLOCKS for one in run.injected):
            run.silenced = stored.silenced
        run.verdict = [
            *judge(book, stored),
            *judge_telling(record, sights, telephones.told, run.injected, ended_at),
        ]
        run.lateness_seconds = lateness(record, run.injected)
        run.alarms = len(record.alarms)
        run.notices = len(telephones.told)
        run.frames = sum(len(sight.frames) for sight in sights)
        run.reconnections = sum(sight.connections for sight in sights)
        run.exit_code = await asyncio.to_thread(platform.end)
    return run


def _planned(
    arguments: argparse.Namespace, dice: random.Random, platform: Platform, run: Run
) -> list[Fault]:
    """Return the faults of this run; say what is left out and why."""
    if not platform.spool_is_small:
        run.left_out.append("a full disk: only root can mount the small one that it needs")
    if not platform.clock.there:
        run.left_out.append("a jump of the server's clock: it needs a C compiler")
    faults = plan(dice, with_full_disk=platform.spool_is_small, with_clock=platform.clock.there)
    if arguments.only:
        faults = [fault for fault in faults if arguments.only in str(fault)]
    return faults


async def _all_drained(platform: Platform, book: Book) -> None:
    """Wait until as much is stored as was acknowledged, or too long: the verdict tells."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < deadline:
        if await arrived(platform.dsn, book):
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def _break_everything(
    scene: "_Scene",
    crowd: Crowd,
    viewers: list[Viewer],
    faults: list[Fault],
    arguments: argparse.Namespace,
    run: Run,
) -> None:
    """Make one fault after the other: each once, or again and again until the time is over."""
    began = time.monotonic()
    number = 0
    while faults:
        fault = faults[number % len(faults)]
        number += 1
        injected = await scene.suffer(fault, arguments.hold, crowd, viewers)
        run.injected.append(injected)
        run.seconds = time.monotonic() - began
        pids = f" pid {', '.join(map(str, injected.pids[:8]))}" if injected.pids else ""
        print(
            f"{run.seconds:6.1f} s  {fault}{pids}: longest without an acknowledgement "
            f"{injected.silence_seconds:.2f} s",
            flush=True,
        )
        over = run.seconds >= arguments.seconds if arguments.seconds else number >= len(faults)
        if over:
            return


@dataclass(frozen=True, slots=True)
class _Scene:
    """Everybody around the platform in one run."""

    platform: Platform
    town: Town
    ledger: Ledger
    rate: float
    dice: random.Random

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[tuple[Crowd, list[Viewer]]]:
        """Publish and watch during the block; then wait until all is acknowledged and seen."""
        routes = self.platform.routes
        viewers = [
            Viewer(
                person,
                lambda: routes["viewers"].listen,
                takes=0.3 if person.post == "first" else 0.0,
                dice=self.dice,
            )
            for person in self.town.people
        ]
        mqtt = routes["devices"].listen
        async with asyncio.TaskGroup() as tasks:
            watching = [
                tasks.create_task(viewer.run(), name=viewer.sight.person.name) for viewer in viewers
            ]
            await self._until(lambda: all(viewer.connected for viewer in viewers), "No viewer.")
            crowd = Crowd(
                self.town.steady,
                self.town.buttons,
                (mqtt.host, mqtt.port),
                self.ledger,
                tasks,
                self.dice,
            )
            sources = (
                tasks.create_task(crowd.publish(self.rate), name="readings"),
                tasks.create_task(crowd.press_now_and_then(0.5), name="presses"),
                tasks.create_task(crowd.misdate(self.town.misdated, 1.0), name="misdated"),
            )
            yield crowd, viewers
            for source in sources:
                source.cancel()
            crowd.close()
            await self._until(lambda: not crowd.pending, "Messages were not acknowledged")
            await self._until_seen(viewers)
            for task in watching:
                task.cancel()

    async def suffer(
        self, fault: Fault, hold_seconds: float, crowd: Crowd, viewers: list[Viewer]
    ) -> Injected:
        """Make one fault while people press for help, and wait until the platform is itself."""
        self.ledger.watch_silence()
        for _ in range(_PRESSES_AT_A_FAULT):
            crowd.press()
        # Anywhere in the life of these presses: on the wire, in the transaction, acknowledged.
        await asyncio.sleep(self.dice.uniform(0, 0.03))
        began_at = datetime.now(UTC)
        pids = await inject(self.platform, fault, hold_seconds)
        recovered_at = datetime.now(UTC)
        await self.steady_again(crowd, viewers)
        silence_seconds = self.ledger.longest_silence_seconds
        await asyncio.sleep(self.dice.uniform(0, 1))
        return Injected(fault, pids, began_at, recovered_at, silence_seconds)

    async def steady_again(self, crowd: Crowd, viewers: list[Viewer]) -> None:
        """Wait until most messages of a second are acknowledged at once, and everybody watches."""
        deadline = time.monotonic() + _RECOVERY_SECONDS
        while True:
            before = self.ledger.messages_acknowledged
            await asyncio.sleep(1)
            self.platform.stack.check()
            taken = self.ledger.messages_acknowledged - before
            watching = all(viewer.connected for viewer in viewers)
            if taken >= 0.8 * self.rate and crowd.pending < self.rate / 2 and watching:
                return
            if time.monotonic() > deadline:
                raise NotRecovered(
                    f"After {_RECOVERY_SECONDS:.0f} s {taken} of {self.rate:.0f} messages/s are "
                    f"acknowledged, {crowd.pending} wait, and "
                    f"{sum(viewer.connected for viewer in viewers)} of {len(viewers)} viewers "
                    f"watch.\n{self.platform.stack.last_words()}"
                )

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        while not condition():
            self.platform.stack.check()
            if time.monotonic() > deadline:
                raise NotRecovered(
                    f"{what} within {_DRAIN_SECONDS:.0f} s.\n{self.platform.stack.last_words()}"
                )
            await asyncio.sleep(TICK_SECONDS)

    async def _until_seen(self, viewers: list[Viewer]) -> None:
        """Wait until no new frame has come for a while; the verdict says whether all came."""
        quiet_since, count = time.monotonic(), -1
        deadline = quiet_since + _DRAIN_SECONDS
        while time.monotonic() < min(deadline, quiet_since + 3):
            now = sum(len(viewer.sight.frames) for viewer in viewers)
            if now != count:
                quiet_since, count = time.monotonic(), now
            await asyncio.sleep(TICK_SECONDS)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def _lengths(arguments: argparse.Namespace) -> argparse.Namespace:
    """Settle how long the run and each fault last; only a full run writes the page."""
    seconds, hold = 0.0, 8.0
    if arguments.quick:
        seconds, hold = 60.0, 2.0
    elif arguments.hour:
        seconds, hold = 3600.0, 30.0
    elif arguments.seconds is not None:
        seconds, hold = arguments.seconds, 2.0
    arguments.write = not (arguments.quick or arguments.seconds or arguments.only)
    arguments.seconds = seconds
    arguments.hold = hold if arguments.hold is None else arguments.hold
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--quick", action="store_true", help="60 s of short faults; no file is written"
    )
    length.add_argument("--hour", action="store_true", help="an hour of faults that last 30 s")
    length.add_argument("--seconds", type=float, help="so long; no file is written")
    parser.add_argument("--hold", type=float, help="how long a fault lasts (8; 2; 30)")
    parser.add_argument("--rate", type=float, default=600, help="messages a second (600)")
    parser.add_argument("--devices", type=int, default=40, help="steady devices (40)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the faults (1)")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--http", default="127.0.0.1:18080", help="refused when in use")
    parser.add_argument("--mqtt", default="127.0.0.1:11883", help="refused when in use")
    parser.add_argument("--ledger", type=Path, help="keep the publishers' book here")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
