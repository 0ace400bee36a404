"""A recording read through a column map: which rows become which device's readings.

Rows of one device and time become one reading; where one of them says the same field twice, the
first value stays. Values are taken as they are, also those that the platform will refuse.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from anxin.errors import SettingError

Unit = Literal["millisecond", "second", "minute", "hour", "day"]
MILLISECONDS: Final[dict[Unit, float]] = {
    "millisecond": 1,
    "second": 1_000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
}
MAPS: Final = resources.files("device_sim") / "maps"
EXTRA: Final = "extra."
Read = TypeVar("Read")


class TimeColumn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a row's time stands.

    Without `unit`: ISO 8601 text (or `format` of strptime) or a timestamp type; times without an
    offset are in `zone`. With `unit`: a number of such units since `start`, or since 1970.
    """

    column: str
    unit: Unit | None = None
    start: datetime | None = None
    format: str | None = None
    zone: str = "UTC"


class LongColumns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One value a row: the columns with the field's name and its value."""

    name: str
    value: str


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A field of the telemetry object (`hr`, `extra.lactate`) = value * factor + offset."""

    to: str
    factor: float = 1.0
    offset: float = 0.0


class DeviceMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One device of each person: its kind, and column (or long name) -> field."""

    kind: str
    fields: dict[str, str | Target]


class ColumnMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a file becomes devices; device ids are `{prefix}-{person}-{key of devices}`."""

    prefix: str
    person: str | tuple[str, ...]
    time: TimeColumn
    devices: dict[str, DeviceMap]
    long: LongColumns | None = None
    missing: tuple[float | str, ...] = ()
    """Codes that mean: not measured."""
    about: str = ""

    @property
    def person_columns(self) -> tuple[str, ...]:
        """The columns that together name a person."""
        return (self.person,) if isinstance(self.person, str) else self.person

    @property
    def needed(self) -> set[str]:
        """The columns without which nothing can be read."""
        names = {*self.person_columns, self.time.column}
        if self.long is not None:
            return names | {self.long.name, self.long.value}
        return names | {column for device in self.devices.values() for column in device.fields}


class Reading(msgspec.Struct, frozen=True):
    """One telemetry object of a recording; `row` is the first row that it comes from, from 1."""

    ts_ms: int
    fields: dict[str, object]
    row: int


class Track(msgspec.Struct, frozen=True):
    """All that one device recorded, in order of time."""

    device_id: str
    kind: str
    person: str
    readings: tuple[Reading, ...]


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds, as devices, with what was left out and why."""

    tracks: tuple[Track, ...]
    rows: int
    repeated: int
    """Values said twice, the same."""
    contradicting: int
    """Values said twice, differently: the first stayed."""
    timeless: int
    """Rows without a usable time."""
    unmapped: dict[str, int]
    """Rows by a long name that the map does not know."""

    @property
    def distinct(self) -> int:
        """How many (device, time) there are."""
        return sum(len(track.readings) for track in self.tracks)


def read_recording(
    path: Path,
    columns: ColumnMap,
    *,
    limit: int | None = None,
    people: int | None = None,
    begin: datetime | None = None,
) -> Recording:
    """Read the file; only its first `limit` rows, first `people` persons, and from `begin` on."""
    table = _table(path, columns)
    if missing := columns.needed - set(table.column_names):
        raise SettingError(f"{path} has no column {sorted(missing)}; see --columns.")
    if limit is not None:
        table = table.slice(0, limit)
    named = [table[name].cast(pa.string()).to_pylist() for name in columns.person_columns]
    persons = ["-".join(map(str, parts)) for parts in zip(*named, strict=True)]
    times = _times_ms(table[columns.time.column], columns.time)
    begin_ms = int(begin.timestamp() * 1000) if begin else None
    wanted = set(list(dict.fromkeys(persons))[:people])
    gather = _Gather(columns)
    for row, key, value in _cells(table, columns, gather.unmapped):
        at_ms = times[row]
        early = begin_ms is not None and at_ms is not None and at_ms < begin_ms
        if at_ms is not None and not early and persons[row] in wanted:
            gather.add(persons[row], key, at_ms, value, row + 1)
    return Recording(
        tracks=gather.tracks(),
        rows=table.num_rows,
        repeated=gather.repeated,
        contradicting=gather.contradicting,
        timeless=times.count(None),
        unmapped=gather.unmapped,
    )


def read_map(text: str | None, recording: Path) -> ColumnMap:
    """Return the map of this name or path; None takes the shipped map that fits the file."""
    shipped = {Path(entry.name).stem: entry for entry in MAPS.iterdir()}
    if text is None:
        columns = set(_column_names(recording))
        for entry in shipped.values():
            found = msgspec.json.decode(entry.read_bytes(), type=ColumnMap)
            if found.needed <= columns:
                return found
        raise SettingError(
            f"No shipped column map ({', '.join(sorted(shipped))}) fits the columns of "
            f"{recording}. Describe them in a file and give it with --columns."
        )
    try:
        content = shipped[text].read_bytes() if text in shipped else Path(text).read_bytes()
        return msgspec.json.decode(content, type=ColumnMap)
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingError(
            f"{text} is not a column map: {error}. See docs/simulator.md."
        ) from error


class _Gather:
    """Puts cells together to readings."""

    def __init__(self, columns: ColumnMap) -> None:
        self._columns = columns
        self._readings: dict[tuple[str, str], dict[int, tuple[int, dict[str, object]]]] = {}
        self.repeated = self.contradicting = 0
        self.unmapped: dict[str, int] = {}

    def add(self, person: str, key: tuple[str, str], at_ms: int, value: object, row: int) -> None:
        """Add one value; `key` is (device key, field)."""
        device, field = key
        readings = self._readings.setdefault((person, device), {})
        _, fields = readings.setdefault(at_ms, (row, {}))
        if field not in fields:
            fields[field] = value
        elif fields[field] == value:
            self.repeated += 1
        else:
            self.contradicting += 1

    def tracks(self) -> tuple[Track, ...]:
        """Return every device with its readings in order."""
        owners: dict[str, tuple[str, str]] = {}
        tracks = []
        for (person, device), readings in self._readings.items():
            id_ = device_id(self._columns.prefix, person, device)
            if owners.setdefault(id_, (person, device)) != (person, device):
                raise SettingError(
                    f"Persons {person!r} and {owners[id_][0]!r} make the same device id {id_}."
                )
            kind = self._columns.devices[device].kind
            ordered = tuple(
                Reading(at_ms, _nested(fields), row)
                for at_ms, (row, fields) in sorted(readings.items())
            )
            tracks.append(Track(id_, kind, person, ordered))
        return tuple(tracks)


def device_id(prefix: str, person: str, device: str) -> str:
    """Return the device id that a recording's ids always make; raise SettingError if too long."""
    made = re.sub(r"[^A-Za-z0-9_-]", "_", f"{prefix}-{person}-{device}")
    if len(made) > 64:
        raise SettingError(f"Device id {made} is longer than 64 characters; shorten the prefix.")
    return made


def _nested(fields: dict[str, object]) -> dict[str, object]:
    """Put `extra.*` into the object of that name."""
    plain = {name: value for name, value in fields.items() if not name.startswith(EXTRA)}
    extra = {name[len(EXTRA) :]: v for name, v in fields.items() if name.startswith(EXTRA)}
    return plain | {"extra": extra} if extra else plain


def _cells(
    table: pa.Table, columns: ColumnMap, unmapped: dict[str, int]
) -> Iterator[tuple[int, tuple[str, str], object]]:
    """Yield (row index, (device key, field), value) for every value that is there."""
    targets: dict[str, list[tuple[str, Target]]] = {}
    for device, mapped in columns.devices.items():
        for source, target in mapped.fields.items():
            full = Target(target) if isinstance(target, str) else target
            targets.setdefault(source, []).append((device, full))
    absent = set(columns.missing)
    if columns.long is not None:
        names = table[columns.long.name].cast(pa.string()).to_pylist()
        for row, (name, value) in enumerate(
            zip(names, _values(table[columns.long.value]), strict=True)
        ):
            if name not in targets:
                unmapped[str(name)] = unmapped.get(str(name), 0) + 1
            elif value is not None and value not in absent:
                for device, target in targets[name]:
                    yield row, (device, target.to), _scaled(value, target)
        return
    for source, uses in targets.items():
        for row, value in enumerate(_values(table[source])):
            if value is not None and value not in absent:
                for device, target in uses:
                    yield row, (device, target.to), _scaled(value, target)


def _scaled(value: object, target: Target) -> object:
    if (target.factor, target.offset) == (1.0, 0.0) or not isinstance(value, int | float):
        return value
    return round(value * target.factor + target.offset, 4)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return the column's values, NaN as None, single precision as short as it was written."""
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(column.type):
        values = [None if value is None or value != value else value for value in values]
    if pa.types.is_float32(column.type):
        values = [None if value is None else float(f"{value:.7g}") for value in values]
    return values


def _times_ms(column: pa.ChunkedArray, how: TimeColumn) -> list[int | None]:
    """Return epoch milliseconds, None where the time cannot be read."""
    zone = _zone(how.zone)
    if how.unit is not None:
        start_ms = _epoch_ms(how.start, zone) if how.start else 0
        step_ms = MILLISECONDS[how.unit]
        return [
            None if value is None else start_ms + round(value * step_ms)
            for value in _values(column.cast(pa.float64()))
        ]
    if pa.types.is_timestamp(column.type):
        stamps = column.cast(pa.timestamp("ms", tz=column.type.tz), safe=False)
        times: list[int | None] = stamps.cast(pa.int64()).to_pylist()
        return times if column.type.tz else [_as_local_ms(ms, zone) for ms in times]
    return [_text_ms(text, how, zone) for text in column.cast(pa.string()).to_pylist()]


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # needs no time zone database on the machine
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise SettingError(f"The column map's zone {name!r} is not known.") from error


def _as_local_ms(utc_ms: int | None, zone: tzinfo) -> int | None:
    """Read a time that was counted as if the zone were UTC."""
    if utc_ms is None or zone is UTC:
        return utc_ms
    return _epoch_ms(_EPOCH + timedelta(milliseconds=utc_ms), zone)


def _text_ms(text: str | None, how: TimeColumn, zone: tzinfo) -> int | None:
    if not text:
        return None
    try:
        if how.format is None:
            return _epoch_ms(datetime.fromisoformat(text), zone)
        return _epoch_ms(datetime.strptime(text, how.format), zone)  # noqa: DTZ007 - zone follows
    except ValueError:
        return None


_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - a zone is put to it where it is used


def _epoch_ms(moment: datetime, zone: tzinfo) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    return (aware - _EPOCH.replace(tzinfo=UTC)) // timedelta(milliseconds=1)


def _table(path: Path, columns: ColumnMap) -> pa.Table:
    """Read the needed columns; in CSV, ids and times as text (an id of digits is still text)."""
    text = (
        {*columns.person_columns, columns.time.column}
        if columns.time.unit is None
        else set(columns.person_columns)
    )
    if columns.long is not None:
        text.add(columns.long.name)
    present = [name for name in _column_names(path) if name in columns.needed]

    def from_csv() -> pa.Table:
        options = pyarrow.csv.ConvertOptions(
            include_columns=present, column_types=dict.fromkeys(text & set(present), pa.string())
        )
        return pyarrow.csv.read_csv(path, convert_options=options)

    read = from_csv if _is_csv(path) else lambda: pyarrow.parquet.read_table(path, columns=present)
    return _reading(path, read)


def _column_names(path: Path) -> Sequence[str]:
    def names() -> Sequence[str]:
        if _is_csv(path):
            with pyarrow.csv.open_csv(path) as reader:
                return list(reader.schema.names)
        return list(pyarrow.parquet.read_schema(path).names)

    return _reading(path, names)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".txt", ".gz")


def _reading(path: Path, read: Callable[[], Read]) -> Read:
    try:
        return read()
    except (OSError, pa.ArrowException) as error:
        raise SettingError(f"{path} cannot be read as CSV or Parquet: {error}.") from error
