"""`anxin simulate`: residents who live, devices that measure them, over real MQTT connections."""

import argparse
import asyncio
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from anxin.config import Settings
from anxin.errors import SettingError
from anxin.logs import log
from device_sim.console import (
    FINISH_S,
    add_connection_arguments,
    administrator,
    all_connected,
    can_log_in,
    mqtt_address,
    mqtt_level,
    pause,
    progress,
    span_s,
    stop_on_signals,
    summary,
    verdict,
)
from device_sim.devices import RHYTHMS
from device_sim.fleet import Fleet
from device_sim.person import DAY_S, HOUR_S
from device_sim.provision import Device, Roster, attribute, provision, read_roster, write_roster
from device_sim.record import FULL_HOURS, record
from device_sim.scenarios import SCENARIOS, Appearance, scenario
from device_sim.scene import Scene
from device_sim.ward import plan_ward

_log = log(__name__)

RESIDENTS: Final = 36
RECORDED: Final = 2000
LOOK_S: Final = 0.25
"""The scene is looked at at least so often."""
GATHER_S: Final = 0.02
"""And at most so often: people are cheaper by the hundred."""
HISTORY_WINDOW: Final = 400
"""Arrays of history under way at once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `anxin simulate`."""
    parser.description = (
        "Simulated residents and their devices, each device on an MQTT connection of its own. "
        "Missing places, residents and devices are created over the HTTP API first (with "
        "ANXIN_ADMIN_PASSWORD or ANXIN_API_TOKEN); their secrets stay in the devices file."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "scenarios:\n" + "\n".join(
        f"  {s.name:16}{s.about}" for s in SCENARIOS.values()
    )
    parser.add_argument(
        "--residents", type=int, metavar="N", help=f"how many (default: all known, or {RESIDENTS})"
    )
    parser.add_argument(
        "--rate",
        type=float,
        metavar="R",
        help="readings a second over all devices (default: each device's natural rhythm)",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="S",
        help="what happens to somebody (below); may be given several times",
    )
    parser.add_argument(
        "--affected", type=int, default=1, metavar="N", help="residents per scenario (default 1)"
    )
    parser.add_argument(
        "--after",
        type=span_s,
        default=10.0,
        metavar="T",
        help="the scenarios begin so long after the start (default 10s)",
    )
    parser.add_argument(
        "--every", type=span_s, metavar="T", help="and again to the next residents after each T"
    )
    parser.add_argument(
        "--history", type=span_s, metavar="T", help="first send so much of the past (at most 7d)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="another seed, other people (default 1)"
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, metavar="X", help="the people's clock runs X times fast"
    )
    parser.add_argument("--at", metavar="HH:MM", help="what the people's clock shows at the start")
    parser.add_argument("--duration", type=span_s, metavar="T", help="end after T (default: never)")
    parser.add_argument(
        "--kinds", metavar="K,K", help="only these kinds of devices, for example bed_sensor"
    )
    parser.add_argument(
        "--provision",
        action="store_true",
        help="compare with the platform and create what is missing even if the devices file has "
        "everybody; with --duration 0 nothing else happens",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="connect to nothing: write hourly vital signs and who falls ill into a folder that "
        "`anxin train --data` reads; with --residents, --days, --scenario (sepsis, fever), "
        "--affected and --seed",
    )
    parser.add_argument(
        "--days", type=float, default=5.0, metavar="D", help="length of --record (default 5)"
    )
    add_connection_arguments(parser)
    parser.add_argument(
        "--devices",
        type=Path,
        metavar="FILE",
        help="devices and secrets (default: sim-devices.json in the data directory)",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Simulate until told to stop; return 0 when everything sent was acknowledged."""
    if args.record:
        return _record(args)
    return asyncio.run(_simulate(args, settings))


def _record(args: argparse.Namespace) -> int:
    """Write a data set of simulated people; without further options one to train a model on."""
    residents = args.residents or RECORDED
    scenarios = [scenario(name) for name in args.scenario or FULL_HOURS]
    if unknown := [one.name for one in scenarios if one.name not in FULL_HOURS]:
        raise SettingError(f"{unknown} cannot be recorded. Choose from {sorted(FULL_HOURS)}.")
    affected = args.affected if args.affected > 1 else residents // (5 * len(scenarios))
    if affected * len(scenarios) > residents or args.days < 2:
        raise SettingError("--record needs more residents than fall ill, and two days or more.")
    people, ill = record(
        args.record,
        residents=residents,
        days=args.days,
        scenarios=scenarios,
        affected=affected,
        seed=args.seed,
    )
    print(f"recorded residents={people} ill={ill} days={args.days:g} folder={args.record}")
    return 0


async def _simulate(args: argparse.Namespace, settings: Settings) -> int:
    """Provision, connect, play, wait for the last acknowledgements, report."""
    happenings = [scenario(name) for name in args.scenario]
    history_s = max([args.history or 0.0, *(s.history_s for s in happenings)])
    history_s = min(history_s, 7 * DAY_S - HOUR_S)
    path: Path = args.devices or Path(settings.data_dir) / "sim-devices.json"
    roster = await _roster(args, settings, path)
    if args.duration == 0:
        return 0
    devices = _chosen(roster, args.residents, args.kinds)
    start_s = time.time()
    scene = Scene(
        devices,
        seed=args.seed,
        start_s=start_s,
        speed=args.speed,
        shift_s=_shift_s(args.at, start_s),
        rate=args.rate,
    )
    fleet = Fleet(
        mqtt_address(args.mqtt or roster.mqtt, settings),
        {device.id: device.secret for device in scene.devices},
        hello=lambda device_id: scene.hello(device_id, time.time()),
        protocol=mqtt_level(args.protocol),
    )
    with stop_on_signals() as stop, progress(fleet.tally, lambda: fleet.connected) as show:
        async with fleet:
            await all_connected(fleet, len(scene.devices), stop)
            if history_s:
                await _tell_history(scene, fleet, history_s, stop)
                since = datetime.fromtimestamp(start_s - history_s, UTC)
                await _attribute(args, settings, roster, path, since)
            end_s = time.time() + args.duration if args.duration else float("inf")
            director, gone = _Director(scene, args), frozenset[str]()
            while not stop.is_set() and (now_s := time.time()) < end_s:
                director.look(now_s)
                if (cut_off := scene.cut_off(now_s)) != gone:
                    gone = cut_off
                    fleet.cut(gone)
                for message in scene.due(now_s):
                    fleet.send(message)
                show()
                next_s = min(scene.next_due_s, now_s + LOOK_S, end_s)
                await pause(stop, max(next_s - time.time(), GATHER_S))
            fleet.cut(())
            await fleet.drain(FINISH_S / 3 if stop.is_set() else FINISH_S)
    residents = len(scene.residents)
    print(f"simulated residents={residents} devices={len(scene.devices)} {summary(fleet.tally)}")
    return verdict(fleet)


class _Director:
    """Lets the wanted scenarios happen, to other residents each round."""

    def __init__(self, scene: Scene, args: argparse.Namespace) -> None:
        self._scene = scene
        self._scenarios = [s for name in args.scenario if (s := scenario(name)).lasts_s]
        self._affected, self._every_s = args.affected, args.every
        self._next_s = time.time() + args.after
        self._turn = args.seed

    def look(self, now_s: float) -> None:
        """Begin what is due."""
        if now_s < self._next_s:
            return
        for happening in self._scenarios:
            people = self._scene.cast(happening.needs, self._affected, self._turn)
            self._turn += self._affected
            if not people:
                raise SettingError(
                    f"Scenario {happening.name} needs a resident with {sorted(happening.needs)}."
                )
            for person in people:
                self._scene.happen(Appearance(happening, person, now_s))
                resident = self._scene.residents[person].id
                _log.info("scenario_begins", scenario=happening.name, resident=resident)
        self._next_s = now_s + self._every_s if self._every_s else float("inf")


async def _tell_history(scene: Scene, fleet: Fleet, back_s: float, stop: asyncio.Event) -> None:
    """Send the past as arrays, no faster than it is acknowledged."""
    readings = 0
    for message, count in scene.history(back_s):
        if stop.is_set():
            return
        await fleet.room(HISTORY_WINDOW)
        fleet.send(message)
        readings += count
    await fleet.drain(FINISH_S)
    _log.info("history_sent", readings=readings, hours=round(back_s / HOUR_S))


async def _roster(args: argparse.Namespace, settings: Settings, path: Path) -> Roster:
    """Return the devices of the file, and create those that are missing from it."""
    known = read_roster(path)
    seated = _seated(known)
    if known.devices and not args.provision and seated >= (args.residents or 0):
        return known
    plan = plan_ward(args.residents or seated or RESIDENTS, args.seed)
    async with administrator(args, settings) as api:
        return await provision(api, plan, known, lambda roster: write_roster(path, roster))


async def _attribute(
    args: argparse.Namespace, settings: Settings, roster: Roster, path: Path, since: datetime
) -> None:
    """Give the history to the residents, when there is a login for it."""
    if not can_log_in(settings):
        _log.warning("history_not_attributed", do="set ANXIN_ADMIN_PASSWORD or ANXIN_API_TOKEN")
        return
    plan = plan_ward(_seated(roster), args.seed, since)
    async with administrator(args, settings) as api:
        await attribute(api, plan, roster, lambda after: write_roster(path, after))


def _seated(roster: Roster) -> int:
    return len({d.resident.id for d in roster.devices if d.resident is not None})


def _chosen(roster: Roster, residents: int | None, kinds: str | None) -> list[Device]:
    """Return the devices of the first residents and of places, of the wanted kinds."""
    wanted = set(kinds.split(",")) if kinds else set(RHYTHMS)
    if unknown := wanted - set(RHYTHMS):
        raise SettingError(
            f"No simulated device is of kind {sorted(unknown)}. Choose from {sorted(RHYTHMS)}."
        )
    seated: dict[str, None] = {}
    for device in roster.devices:
        if device.resident is not None:
            seated.setdefault(device.resident.id)
    first = set(list(seated)[:residents])
    chosen = [
        device
        for device in roster.devices
        if device.kind in wanted and (device.resident is None or device.resident.id in first)
    ]
    if not chosen:
        raise SettingError("There is no device to simulate: give more residents or other kinds.")
    return chosen


def _shift_s(at: str | None, start_s: float) -> float:
    """Return how far the people's clock is ahead so that it shows `at` at the start."""
    if at is None:
        return 0.0
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", at)
    if not found:
        raise SettingError(f"--at {at!r} is not a time of day such as 22:30.")
    wanted_s = int(found[1]) * 3600 + int(found[2]) * 60
    return (wanted_s - (start_s + 8 * HOUR_S)) % DAY_S
