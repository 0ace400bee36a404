"""`anxin replay`: a recording sent as devices, with its own time stamps or as if it were now."""

import argparse
import asyncio
import contextlib
import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    stop_on_signals,
    summary,
    verdict,
)
from device_sim.fleet import Fleet, Tally
from device_sim.payload import STATE, TELEMETRY, Outgoing, encode, pack
from device_sim.provision import (
    Plan,
    PlannedDevice,
    PlannedPlace,
    PlannedResident,
    Roster,
    attribute,
    provision,
    read_roster,
    write_roster,
)
from device_sim.recording import ColumnMap, Reading, Recording, Track, read_map, read_recording

_log = log(__name__)

DEVICES_AT_ONCE: Final = 100
"""As recorded, so many devices are connected at a time."""
UNDER_WAY: Final = 1_000
"""Messages on their way before the recording is read on."""
LATE_S: Final = 0.02
"""Readings due within this are sent together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `anxin replay`."""
    parser.description = (
        "Sends a recording (CSV or Parquet) as devices over MQTT. As recorded (the default) the "
        "readings keep their own time stamps: history, which raises no live alarm; as fast as it "
        "is acknowledged, or with --speed in the original spacing divided by X. With --live they "
        "carry the time of sending, so that rules and alarms work on them. Replaying the same file "
        "as recorded again changes nothing."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a .csv or .parquet file")
    parser.add_argument(
        "--columns",
        metavar="MAP",
        help="what the columns mean: a JSON file, or tihm or physionet2019 (default: what fits)",
    )
    parser.add_argument(
        "--speed", type=float, metavar="X", help="original spacing times 1/X (with --live: 1)"
    )
    parser.add_argument("--live", action="store_true", help="time stamps of the moment of sending")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    parser.add_argument("--people", type=int, metavar="N", help="only the first N persons")
    parser.add_argument(
        "--from",
        dest="begin",
        type=_moment,
        metavar="TIME",
        help="only readings from this recorded time on (ISO 8601, UTC unless it says otherwise)",
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="write a JSON line for each reading sent: device, ts, recorded ts, row of the file",
    )
    parser.add_argument(
        "--provision",
        action="store_true",
        help="create what is missing on the platform even if the devices file has every device",
    )
    add_connection_arguments(parser)
    parser.add_argument(
        "--devices",
        type=Path,
        metavar="FILE",
        help="devices and secrets (default: replay-PREFIX.json in the data directory)",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Replay the file; return 0 when everything sent was acknowledged."""
    if args.speed is not None and args.speed <= 0:
        raise SettingError("--speed must be greater than 0.")
    return asyncio.run(_replay(args, settings))


async def _replay(args: argparse.Namespace, settings: Settings) -> int:
    columns = read_map(args.columns, args.file)
    recording = read_recording(
        args.file, columns, limit=args.limit, people=args.people, begin=args.begin
    )
    if not recording.tracks:
        raise SettingError(f"{args.file} holds no reading that the column map can use.")
    path: Path = args.devices or Path(settings.data_dir) / f"replay-{columns.prefix}.json"
    plan = _plan(columns, recording, own_times=not args.live)
    roster = await _roster(args, settings, plan, path)
    secrets = {device.id: device.secret for device in roster.devices}
    address = mqtt_address(args.mqtt or roster.mqtt, settings)
    tally = Tally()

    def fleet_of(tracks: Sequence[Track], hello: Callable[[str], Outgoing] | None = None) -> Fleet:
        chosen = {track.device_id: secrets[track.device_id] for track in tracks}
        level = mqtt_level(args.protocol)
        return Fleet(address, chosen, hello=hello, protocol=level, tally=tally)

    with stop_on_signals() as stop, _tracing(args.trace) as trace:
        if args.live or args.speed is not None:
            fleet = fleet_of(recording.tracks, _online if args.live else None)
            await _paced(fleet, recording, args.speed or 1.0, trace, stop, live=args.live)
            code = verdict(fleet)
        else:
            code = await _as_recorded(recording, fleet_of, trace, stop)
    if not args.live and can_log_in(settings):
        async with administrator(args, settings) as api:
            await attribute(api, plan, roster, lambda after: write_roster(path, after))
    print(
        f"replayed rows={recording.rows} distinct={recording.distinct} "
        f"devices={len(recording.tracks)} repeated={recording.repeated} "
        f"contradicting={recording.contradicting} timeless={recording.timeless} {summary(tally)}"
    )
    if recording.unmapped:
        _log.warning("rows_without_a_field", names=recording.unmapped)
    return code


async def _as_recorded(
    recording: Recording,
    fleet_of: Callable[[Sequence[Track]], Fleet],
    trace: "Trace",
    stop: asyncio.Event,
) -> int:
    """Send everything with its own time, a group of devices after the other, as arrays."""
    code = 0
    for first in range(0, len(recording.tracks), DEVICES_AT_ONCE):
        tracks = recording.tracks[first : first + DEVICES_AT_ONCE]
        fleet = fleet_of(tracks)
        with progress(fleet.tally, lambda fleet=fleet: fleet.connected) as show:  # type: ignore[misc]  # mypy does not infer the default's type
            async with fleet:
                await all_connected(fleet, len(tracks), stop)
                for track in tracks:
                    if track.device_id in fleet.refused:
                        continue
                    for payload, _ in pack(_stamped(track, trace)):
                        await _room(fleet, stop)
                        fleet.send(Outgoing(track.device_id, TELEMETRY, payload))
                        show()
                await _finish(fleet, stop)
        code = max(code, verdict(fleet))
        if stop.is_set():
            return max(code, 1)
    return code


async def _paced(
    fleet: Fleet,
    recording: Recording,
    speed: float,
    trace: "Trace",
    stop: asyncio.Event,
    *,
    live: bool,
) -> None:
    """Send reading by reading in the recording's spacing divided by `speed`."""
    with progress(fleet.tally, lambda: fleet.connected) as show:
        async with fleet:
            await all_connected(fleet, len(recording.tracks), stop)
            begin_s = time.time()
            begin_ms = min(track.readings[0].ts_ms for track in recording.tracks)
            last_ms = {track.device_id: 0 for track in recording.tracks}
            for device_id, reading in _in_order(recording.tracks):
                if device_id in fleet.refused:
                    continue
                due_s = begin_s + (reading.ts_ms - begin_ms) / 1000 / speed
                while (wait_s := due_s - time.time()) > LATE_S and not stop.is_set():
                    show()
                    await pause(stop, min(wait_s, 0.5))
                await _room(fleet, stop)
                if stop.is_set():
                    break
                ts_ms = reading.ts_ms
                if live:
                    # Two readings of a device within a millisecond would be the same reading.
                    ts_ms = max(int(time.time() * 1000), last_ms[device_id] + 1)
                    last_ms[device_id] = ts_ms
                trace(device_id, ts_ms, reading)
                fleet.send(Outgoing(device_id, TELEMETRY, encode(_telemetry(ts_ms, reading))))
                show()
            await _finish(fleet, stop)


def _in_order(tracks: Sequence[Track]) -> Iterator[tuple[str, Reading]]:
    """Yield all readings of all devices by time."""
    each = ([(r.ts_ms, track.device_id, r) for r in track.readings] for track in tracks)
    for _, device_id, reading in heapq.merge(*each, key=lambda item: item[:2]):
        yield device_id, reading


def _stamped(track: Track, trace: "Trace") -> Iterator[dict[str, object]]:
    for reading in track.readings:
        trace(track.device_id, reading.ts_ms, reading)
        yield _telemetry(reading.ts_ms, reading)


def _telemetry(ts_ms: int, reading: Reading) -> dict[str, object]:
    """Return the object to send; its counter is the row of the file that it comes from."""
    return {"ts": ts_ms, "seq": reading.row} | reading.fields


def _online(device_id: str) -> Outgoing:
    return Outgoing(device_id, STATE, encode({"online": True}))


async def _room(fleet: Fleet, stop: asyncio.Event) -> None:
    """Wait until not too much is on its way, or told to stop."""
    while fleet.tally.unacknowledged >= UNDER_WAY and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await fleet.room(UNDER_WAY)


async def _finish(fleet: Fleet, stop: asyncio.Event) -> None:
    """Wait for the last acknowledgements as long as any come."""
    acked = -1
    while fleet.tally.acked > acked:
        acked = fleet.tally.acked
        if await fleet.drain(FINISH_S / 3 if stop.is_set() else FINISH_S):
            return


async def _roster(args: argparse.Namespace, settings: Settings, plan: Plan, path: Path) -> Roster:
    """Return the devices of the recording, and create those that are missing."""
    known = read_roster(path)
    ready = {device.id: device for device in known.devices}
    everybody = all(planned.id in ready for planned in plan.devices)
    # A device that only recorded is nobody's now; live, it must be somebody's again.
    idle = args.live and any(device.until is not None for device in ready.values())
    if everybody and not args.provision and not (idle and can_log_in(settings)):
        return known
    async with administrator(args, settings) as api:
        return await provision(api, plan, known, lambda roster: write_roster(path, roster))


def _plan(columns: ColumnMap, recording: Recording, *, own_times: bool) -> Plan:
    """Return one place for the recording, its persons as residents, and their devices."""
    place = PlannedPlace("recording", None, "facility", f"回放 {columns.prefix}")
    persons = dict.fromkeys(track.person for track in recording.tracks)
    residents = [
        PlannedResident(person, place.key, f"{columns.prefix} {person}") for person in persons
    ]
    devices = [
        PlannedDevice(
            track.device_id,
            track.kind,
            place.key,
            track.person,
            _utc(track.readings[0].ts_ms) if own_times else None,
            _utc(track.readings[-1].ts_ms + 1) if own_times else None,
        )
        for track in recording.tracks
    ]
    return Plan((place,), tuple(residents), tuple(devices))


def _utc(ts_ms: int) -> datetime:
    return datetime.fromtimestamp(ts_ms / 1000, UTC)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2019-05-13") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Trace = Callable[[str, int, Reading], None]


@contextmanager
def _tracing(path: Path | None) -> Iterator[Trace]:
    """Give a function that notes where each reading that is sent comes from."""
    if path is None:
        yield lambda _device_id, _ts_ms, _reading: None
        return
    with path.open("wb") as file:

        def trace(device_id: str, ts_ms: int, reading: Reading) -> None:
            line = {
                "device": device_id,
                "ts": ts_ms,
                "recorded": reading.ts_ms,
                "row": reading.row,
                "fields": reading.fields,
            }
            file.write(encode(line) + b"\n")

        yield trace
