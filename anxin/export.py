"""Everything about one resident as a ZIP file, and `anxin export`, which writes one.

    README.txt     what is in here
    person.json    record, identity, relatives, consents, devices, visits, observations
    alarms.json    alarms with their timeline and the notices that were sent
    events.json    what the resident's devices reported
    readings.csv   every reading, one row per telemetry object
    fhir.json      the same as a FHIR R4 Bundle

It is made as it is sent: nothing but a page of rows is ever held. Whatever breaks it off leaves a
file without its directory, which no program takes for whole.
"""

import argparse
import asyncio
import csv
import io
import os
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from tqdm import tqdm

from anxin import fhir
from anxin.config import Settings
from anxin.db import people
from anxin.db.consents import Consent, consents
from anxin.db.export import Source
from anxin.db.people import Identity, Relative
from anxin.db.pool import Database
from anxin.db.scope import EVERYTHING, Scope
from anxin.errors import AnxinError, SettingError
from anxin.keys import read_keys
from anxin.notify.notice import KINDS, PRIORITIES
from anxin.seal import DataKeys
from anxin.vitals import CONSCIOUSNESS, NAMES, PRESENCE

MOST_CONSENTS: Final = 10_000
_COLUMNS: Final = (
    "time", "received", "device", "presence", "consciousness", "oxygen", *NAMES, "seq", "flags",
    "extra",
)  # fmt: skip
_README: Final = """安心 Anxin · 个人数据导出 · export of one person's data

person.json    个人档案、身份信息、亲属、授权、设备、服务 · record, identity, relatives, consents,
               devices, visits, observations by staff
alarms.json    报警、处置过程与通知 · alarms, what was done about them, notices
events.json    设备事件 · events of devices
readings.csv   全部读数（UTC 时间）· every reading, times in UTC; units as in the platform's metrics
fhir.json      HL7 FHIR R4 Bundle

本文件含敏感个人信息，请妥善保管。This file holds sensitive personal data: keep it safe.
"""


class FileTaken(AnxinError):
    """The file exists already. Choose another name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take whom, and where to."""
    parser.description = (
        "Writes record, identity (in full), relatives, consents, alarms with their timeline, "
        "events, every reading and a FHIR R4 Bundle of one resident into a ZIP file that only you "
        "can read. The file appears when it is whole."
    )
    parser.add_argument("--resident", required=True, type=int, metavar="ID")
    parser.add_argument("--to", type=Path, metavar="FILE", help="default resident-ID.zip")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Write the file and say where."""
    if not settings.database:
        raise SettingError("Set ANXIN_DATABASE, or name the data directory with --data-dir.")
    path = args.to or Path(f"resident-{args.resident}.zip")
    if path.exists():
        raise FileTaken(f"{path} exists already. Choose another name with --to.")
    part = path.with_name(f"{path.name}.part")
    try:
        asyncio.run(_write(settings, args.resident, part))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    print(path)
    return 0


async def archive(
    database: Database,
    scope: Scope,
    keys: DataKeys,
    resident_id: int,
    *,
    operator: bool = False,
    on_rows: Callable[[int], object] = lambda _: None,
) -> AsyncIterator[bytes]:
    """Yield the bytes of the ZIP file; `on_rows` hears how many readings were written.

    Readings are written twice: as CSV and as FHIR. Raise NotFound before the first byte.
    """
    source = Source(database, scope, resident_id, operator=operator)
    about = _About(
        await source.person(),
        await source.assignments(),
        await source.visits(),
        await source.observations(),
        await people.identity(database, scope, keys, resident_id),
        await people.relatives(database, scope, keys, resident_id),
        await consents(database, scope, resident_id, before=None, limit=MOST_CONSENTS),
    )
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as whole:
        for name, chunks in (
            ("README.txt", _text(_README)),
            ("person.json", _text(about.json())),
            ("alarms.json", _array(source.alarms())),
            ("events.json", _array(source.events())),
            ("readings.csv", _csv(source, about, on_rows)),
            ("fhir.json", _bundle(source, about, on_rows)),
        ):
            entry = zipfile.ZipInfo(name, datetime.now(UTC).timetuple()[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            with whole.open(entry, "w", force_zip64=True) as file:
                async for chunk in chunks:
                    # Compressing a page takes long enough to hold up everybody else's requests.
                    await asyncio.to_thread(file.write, chunk)
                    for part in sink.taken():
                        yield part
        # Who lost the right to see this meanwhile has seen no rows since: it is not whole.
        await source.person()
    for part in sink.taken():
        yield part


class _About:
    """What is small: one page about the person."""

    def __init__(
        self,
        who: dict[str, Any],
        assignments: list[dict[str, Any]],
        visits: list[dict[str, Any]],
        observations: list[dict[str, Any]],
        identity: Identity,
        relatives: list[Relative],
        given: list[Consent],
    ) -> None:
        self.who, self.assignments, self.visits = who, assignments, visits
        self.observations = observations
        self.identity, self.relatives, self.consents = identity, relatives, given

    def json(self) -> str:
        """Return all of it as JSON."""
        whole = {
            **self.who,
            "identity": self.identity,
            "relatives": self.relatives,
            "consents": self.consents,
            "devices": [
                {name: value for name, value in one.items() if name != "id"}
                for one in self.assignments
            ],
            "visits": self.visits,
            "observations": self.observations,
        }
        return msgspec.json.format(msgspec.json.encode(whole), indent=1).decode()

    def resources(self) -> list[fhir.Resource]:
        """Return Patient, Devices and Consents."""
        patient = fhir.patient(
            self.who,
            id_card=self.identity.id_card,
            phone=self.identity.phone,
            relatives=[(one.name, one.relation, one.phone) for one in self.relatives],
        )
        devices = {one["device_id"]: one for one in self.assignments}
        return [
            patient,
            *(fhir.device(one, fhir.url(patient)) for one in devices.values()),
            *(fhir.consent(asdict(one), fhir.url(patient)) for one in self.consents),
        ]


class _Sink(io.RawIOBase):
    """A file that only grows; what was written is taken away at once."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:  # noqa: ANN401  anything with a buffer, as in io
        self._parts.append(bytes(part))
        return len(part)

    def taken(self) -> list[bytes]:
        parts, self._parts = self._parts, []
        return parts


async def _text(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


async def _array(pages: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[bytes]:
    """Yield rows as one JSON array, a line for each."""
    opened = False
    async for rows in pages:
        lines = [msgspec.json.encode(_told(row)) for row in rows]
        yield (b",\n" if opened else b"[\n") + b",\n".join(lines)
        opened = True
    yield b"\n]\n" if opened else b"[]\n"


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as the API would tell it."""
    told = {name: value for name, value in row.items() if name != "device_key"}
    if "priority" in told:
        told["priority"] = PRIORITIES[told["priority"]]
    return told


async def _csv(
    source: Source, about: _About, on_rows: Callable[[int], object]
) -> AsyncIterator[bytes]:
    # With a byte order mark, without which spreadsheets take it for another encoding.
    yield ("\ufeff" + ",".join(_COLUMNS) + "\r\n").encode()
    for one in about.assignments:
        async for rows in source.readings(one["id"]):
            text = io.StringIO()
            csv.writer(text).writerows(_line(row, one["device_id"]) for row in rows)
            yield text.getvalue().encode()
            on_rows(len(rows))


def _line(row: dict[str, Any], device_id: str) -> list[object]:
    presence, consciousness = row["presence"], row["consciousness"]
    return [
        fhir.instant(row["ts"]),
        fhir.instant(row["received_at"]),
        device_id,
        None if presence is None else PRESENCE[presence],
        None if consciousness is None else CONSCIOUSNESS[consciousness],
        None if row["oxygen"] is None else str(row["oxygen"]).lower(),
        *(None if row[name] is None else f"{row[name]:.9g}" for name in NAMES),
        row["seq"],
        row["flags"],
        None if row["extra"] is None else msgspec.json.encode(row["extra"]).decode(),
    ]


async def _bundle(
    source: Source, about: _About, on_rows: Callable[[int], object]
) -> AsyncIterator[bytes]:
    now = fhir.instant(datetime.now(UTC))
    yield f'{{"resourceType":"Bundle","type":"collection","timestamp":"{now}","entry":['.encode()
    resources = about.resources()
    patient = fhir.url(resources[0])
    yield _entries(resources).removeprefix(b",")
    async for alarms in source.alarms():
        yield _entries([_flag(one, patient) for one in alarms])
    urls = {
        one["identifier"][0]["value"]: fhir.url(one)
        for one in resources
        if one["resourceType"] == "Device"
    }
    for one in about.assignments:
        series = fhir.Series(patient, urls[one["device_id"]], one["device_id"])
        async for rows in source.readings(one["id"]):
            yield _entries([found for row in rows for found in series.take(row)])
            on_rows(len(rows))
        yield _entries(list(series.rest()))
    yield b"\n]}\n"


def _flag(alarm: dict[str, Any], patient: str) -> fhir.Resource:
    return fhir.flag(alarm, patient, KINDS.get(alarm["kind"], (alarm["kind"], alarm["kind"])))


def _entries(resources: list[fhir.Resource]) -> bytes:
    """Return resources as entries of a bundle, each after a comma."""
    return b"".join(
        b",\n" + msgspec.json.encode({"fullUrl": fhir.url(one), "resource": one})
        for one in resources
    )


async def _write(settings: Settings, resident_id: int, path: Path) -> None:
    keys = read_keys(settings)
    async with Database(settings.database, size=1, application="anxin export") as database:
        source = Source(database, EVERYTHING, resident_id, operator=True)
        await source.person()
        total = 2 * await source.count()
        with (
            os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,
            tqdm(total=total, unit=" readings", disable=not sys.stderr.isatty()) as bar,
        ):
            async for part in archive(
                database, EVERYTHING, keys, resident_id, operator=True, on_rows=bar.update
            ):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
