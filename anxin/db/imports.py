"""Lists that are taken over: kept sealed until then, compared with what is there, written whole."""

import asyncio
import secrets
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
from psycopg.types.json import Jsonb

from anxin.db.people import PURPOSES
from anxin.db.pool import Connection, Database, blocks
from anxin.db.scope import Scope
from anxin.device_secret import new_secret
from anxin.errors import Conflict, NotFound
from anxin.imports import Action, Heading, Kind, KnownPlace, Places, Row, Sheet
from anxin.matching import (
    PLAIN,
    Asked,
    Known,
    KnownDevice,
    KnownPerson,
    Plan,
    asked_for,
    judge,
)
from anxin.seal import DataKeys, PersonKey, Place

_SQL: Final = blocks("imports")
KEPT_FOR: Final = timedelta(hours=24)
SLICE: Final = 1_000
"""Rows that are written by one statement; progress is told after each."""
Progress = Callable[[int], Awaitable[None]]


class Faults(Conflict):
    """Mend the rows at fault, or leave them out. 请先改正有问题的行，或选择不导入；没有写入。"""


class Outdated(Conflict):
    """What is on record has changed: look again. 档案刚刚有变化，请重新核对；没有写入。"""


@dataclass(frozen=True, slots=True)
class Import:
    """A list that waits to be taken over, or was; `done` rows are written while it is."""

    id: UUID
    kind: Kind
    name: str
    place_id: str | None
    created_at: datetime
    expires_at: datetime
    columns: list[Heading]
    counts: dict[Action, int]
    done: int
    applied_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeviceSecret:
    """The secret of a device that was new, shown this once."""

    id: str
    secret: str


async def add_import(
    database: Database,
    scope: Scope,
    keys: DataKeys,
    sheet: Sheet,
    *,
    name: str,
    place_id: int | None,
    user_id: int,
    now: datetime,
    today: date,
) -> Import:
    """Compare a file with what is on record and keep both, sealed; raise NotFound for the place."""
    id_ = uuid4()
    async with database.transaction() as connection:
        await _judged(connection, scope, keys, sheet, place_id, today)
        sealed = await asyncio.to_thread(_sealed, keys, sheet, id_)
        await connection.execute(
            _SQL["add"],
            {
                "id": id_,
                "kind": sheet.kind,
                "name": name,
                "place_id": place_id,
                "created_by": user_id,
                "expires_at": now + KEPT_FOR,
                "columns": Jsonb(msgspec.to_builtins(sheet.headings)),
                **sealed,
            },
        )
        return await _get(connection, id_)


async def imports(database: Database, *, limit: int) -> list[Import]:
    """Return one's own lists, newest first."""
    rows = await database.fetch(_SQL["list"], {"limit": limit})
    return [_import(row) for row in rows]


async def import_(database: Database, id_: UUID) -> Import:
    """Return one's own list; raise NotFound."""
    async with database.transaction() as connection:
        return await _get(connection, id_)


async def rows_of(
    database: Database, keys: DataKeys, id_: UUID, *, action: Action | None, after: int, limit: int
) -> list[Row]:
    """Return rows of a list by number, with what was found about each; none once it is taken over.

    Raise NotFound.
    """
    async with database.transaction() as connection:
        sheet, _ = await _opened(connection, keys, id_)
    rows = sheet.rows if sheet else []
    fitting = [one for one in rows if one.number > after and action in (None, one.action)]
    return fitting[:limit]


async def mend(
    database: Database,
    scope: Scope,
    keys: DataKeys,
    id_: UUID,
    *,
    cells: Mapping[int, Mapping[str, str]],
    left_out: Sequence[int],
    put_back: Sequence[int],
    today: date,
) -> Import:
    """Put other values into rows, or leave rows out, and look at all again.

    Raise NotFound, or Conflict when it is taken over already.
    """
    async with database.transaction() as connection:
        sheet, place_id = await _opened(connection, keys, id_)
        if sheet is None:
            raise Conflict("This list was stored already. 这份名单已经导入过了。")
        rows = {one.number: one for one in sheet.rows}
        if odd := ({*cells, *left_out, *put_back} - rows.keys()):
            raise NotFound(f"There is no row {min(odd)} in this list.")
        for number in left_out:
            rows[number].action = "left_out"
        for number in (*put_back, *cells):
            rows[number].action = "create"
        for number, changes in cells.items():
            merged = rows[number].cells | {name: text.strip() for name, text in changes.items()}
            rows[number].cells = {name: text for name, text in merged.items() if text}
        await _judged(connection, scope, keys, sheet, place_id, today)
        await _keep(connection, keys, sheet, id_)
        return await _get(connection, id_)


async def drop_import(database: Database, id_: UUID) -> None:
    """Forget one's own list; what was taken over stays. Raise NotFound."""
    if not await database.execute(_SQL["drop"], {"id": id_}):
        raise _missing(id_)


async def apply_import(
    database: Database, scope: Scope, keys: DataKeys, id_: UUID, *, today: date
) -> tuple[Import, list[DeviceSecret]]:
    """Store everything that a list says, in one transaction; a second time, nothing.

    Raise NotFound, Faults while a row is at fault, Outdated when what is on record has changed so
    that other things would come of it than were shown, or Conflict.
    """

    async def told(done: int) -> None:
        # On another connection: everybody sees at once how far it is.
        await database.execute(_SQL["advance"], {"id": id_, "done": done})

    try:
        async with database.transaction() as connection:
            row = await (await connection.execute(_SQL["one_at_a_time"])).fetchone()
            if not row or not row["mine"]:
                raise Conflict(
                    "Another list is being stored: try again soon. 正在导入另一份名单，请稍后再试。"
                )
            sheet, place_id = await _opened(connection, keys, id_)
            if sheet is None:
                return await _get(connection, id_), []
            shown = [(one.action, one.id, one.changes) for one in sheet.rows]
            plans = await _judged(connection, scope, keys, sheet, place_id, today)
            _check(plans, [(one.action, one.id, one.changes) for one in sheet.rows] == shown)
            wanted = [plan for plan in plans if plan.row.action in ("create", "change")]
            if sheet.kind == "residents":
                await _write_people(connection, keys, wanted, told)
                made = []
            else:
                made = await _write_devices(connection, wanted, told)
            await connection.execute(_SQL["applied"], {"id": id_, "done": len(wanted)})
            return await _get(connection, id_), made
    except (Faults, Outdated):
        # What is shown next is how it stands now.
        await mend(database, scope, keys, id_, cells={}, left_out=(), put_back=(), today=today)
        raise


def _check(plans: Sequence[Plan], as_shown: bool) -> None:
    """Raise Faults or Outdated unless the plans can be carried out as they were shown."""
    if any(plan.row.faults for plan in plans):
        raise Faults
    if not as_shown:
        raise Outdated


def _missing(id_: UUID) -> NotFound:
    return NotFound(f"There is no list {id_} of yours, or it has expired.")


async def _get(connection: Connection, id_: UUID) -> Import:
    row = await (await connection.execute(_SQL["get"], {"id": id_})).fetchone()
    if row is None:
        raise _missing(id_)
    return _import(row)


def _import(row: dict[str, Any]) -> Import:
    return Import(**row | {"columns": msgspec.convert(row["columns"], list[Heading])})


async def _opened(
    connection: Connection, keys: DataKeys, id_: UUID
) -> tuple[Sheet | None, int | None]:
    """Return the rows of a list, None when they were taken over, and its place for the others."""
    row = await (await connection.execute(_SQL["content"], {"id": id_})).fetchone()
    if row is None:
        raise _missing(id_)
    if row["content"] is None:
        return None, row["place_id"]
    plain = await asyncio.to_thread(
        lambda: msgspec.json.decode(
            zlib.decompress(keys.open(row["master_id"], bytes(row["content"]), _place(id_))),
            type=Sheet,
        )
    )
    return plain, row["place_id"]


async def _keep(connection: Connection, keys: DataKeys, sheet: Sheet, id_: UUID) -> None:
    sealed = await asyncio.to_thread(_sealed, keys, sheet, id_)
    await connection.execute(_SQL["keep"], {"id": id_, **sealed})


def _place(id_: UUID) -> Place:
    return Place("imports", "content", str(id_))


def _sealed(keys: DataKeys, sheet: Sheet, id_: UUID) -> dict[str, Any]:
    counts = Counter(row.action for row in sheet.rows)
    master, sealed = keys.seal(zlib.compress(msgspec.json.encode(sheet), 3), _place(id_))
    return {"counts": Jsonb(counts), "master_id": master, "content": sealed}


async def _judged(
    connection: Connection,
    scope: Scope,
    keys: DataKeys,
    sheet: Sheet,
    place_id: int | None,
    today: date,
) -> list[Plan]:
    """Compare every row with what is on record as the caller sees it."""
    asked = await asyncio.to_thread(asked_for, sheet, today)
    known = await _known(connection, scope, keys, asked, place_id)
    return await asyncio.to_thread(judge, sheet, known, today)


async def _known(
    connection: Connection, scope: Scope, keys: DataKeys, asked: Asked, place_id: int | None
) -> Known:
    def indexes(table: str, column: str) -> Callable[[str], list[bytes]]:
        return lambda number: keys.candidates(PURPOSES[table, column], number)

    async def rows(name: str, **parameters: object) -> list[dict[str, Any]]:
        found = await connection.execute(_SQL[name], {**scope.parameters(), **parameters})
        return await found.fetchall()

    cards = indexes("identities", "id_card")
    places = msgspec.convert(
        await rows("places", names=list(asked.places), default=place_id), list[KnownPlace]
    )
    path = scope.path or ""
    default = next(
        (one for one in places if one.id == place_id and path and one.path.startswith(path)), None
    )
    if place_id is not None and default is None:
        raise NotFound(f"There is no place {place_id}, or you may not see it.")
    people = await rows(
        "people",
        ids=list(asked.ids),
        names=list(asked.names),
        cards=[index for card in asked.cards for index in cards(card)],
    )
    return Known(
        Places(places, path),
        default,
        [KnownPerson(**row) for row in people],
        [KnownDevice(**row) for row in await rows("devices", ids=list(asked.devices))],
        cards,
        indexes("identities", "phone"),
        indexes("relatives", "phone"),
    )


async def _write_people(
    connection: Connection, keys: DataKeys, plans: Sequence[Plan], told: Progress
) -> None:
    await _add_beds(connection, plans)
    for start in range(0, len(plans), SLICE):
        part = plans[start : start + SLICE]
        new = [plan for plan in part if plan.known is None]
        changed = [plan for plan in part if isinstance(plan.known, KnownPerson)]
        ids = dict(zip(map(id, new), await _add_people(connection, new), strict=True))
        ids |= {id(plan): int(plan.row.id or 0) for plan in changed}
        stored = [plan for plan in changed if {*PLAIN, "place", "bed"} & {*plan.row.changes}]
        if stored:
            own = [ids[id(plan)] for plan in stored]
            await connection.execute(_SQL["change_people"], {"id": own, **_columns(stored)})
        await _seal_numbers(connection, keys, [(ids[id(plan)], plan) for plan in part])
        await told(start + len(part))


def _columns(plans: Sequence[Plan]) -> dict[str, list[Any]]:
    columns = {name: [plan.values.get(name) for plan in plans] for name in PLAIN}
    columns["sex"] = [None if sex == "unknown" else sex for sex in columns["sex"]]
    return columns | {"place_id": [plan.place_id for plan in plans]}


async def _add_beds(connection: Connection, plans: Sequence[Plan]) -> None:
    """Make the beds that are not there yet, each once, and put them into the plans."""
    wanted = list(dict.fromkeys(plan.bed for plan in plans if plan.bed))
    if not wanted:
        return
    parents, names = zip(*wanted, strict=True)
    made = await connection.execute(
        _SQL["add_beds"], {"parents": list(parents), "names": list(names)}
    )
    ids = {(row["parent_id"], row["name"]): row["id"] for row in await made.fetchall()}
    for plan in plans:
        if plan.bed:
            plan.place_id = ids[plan.bed]


async def _add_people(connection: Connection, plans: Sequence[Plan]) -> list[int]:
    """Add residents and return their ids, in the order of the plans."""
    if not plans:
        return []
    columns = _columns(plans)
    rows = await (await connection.execute(_SQL["add_people"], columns)).fetchall()
    rows.sort(key=lambda row: row["id"])
    if [(row["name"], row["place_id"]) for row in rows] != list(
        zip(columns["name"], columns["place_id"], strict=True)
    ):
        # Numbers are about to be sealed for them: never those of somebody else.
        raise Conflict("The residents came back in another order. Nothing was stored.")
    return [row["id"] for row in rows]


async def _seal_numbers(
    connection: Connection, keys: DataKeys, people: Sequence[tuple[int, Plan]]
) -> None:
    """Store ID cards, telephone numbers and contacts, each sealed for its person and place."""
    wanted = [(id_, plan) for id_, plan in people if plan.numbers or plan.contact]
    if not wanted:
        return
    ids = [id_ for id_, _ in wanted]
    rows = await (await connection.execute(_SQL["keys"], {"ids": ids})).fetchall()
    sealed = await asyncio.to_thread(_seal_all, keys, rows, wanted)
    for name, parameters in sealed.items():
        await connection.execute(_SQL[name], parameters)


def _seal_all(
    keys: DataKeys, rows: Sequence[dict[str, Any]], wanted: Sequence[tuple[int, Plan]]
) -> dict[str, dict[str, Any]]:
    """Return the statements that store what is sealed, with their parameters."""
    own = {
        row["resident_id"]: keys.unwrap(
            row["master_id"], row["id"], bytes(row["wrapped"]), row["resident_id"]
        )
        for row in rows
    }
    fresh = {id_: PersonKey.new() for id_, _ in wanted if id_ not in own}
    found: dict[str, dict[str, Any]] = {}
    if fresh:
        found["add_keys"] = {
            "master_id": keys.newest_master,
            "index_id": keys.newest_index,
            "residents": list(fresh),
            "ids": [key.id for key in fresh.values()],
            "wrapped": [keys.wrap(key, id_)[1] for id_, key in fresh.items()],
        }
    own |= fresh
    numbers: dict[str, list[Any]] = {
        name: [] for name in ("residents", "id_card", "id_card_index", "phone", "phone_index")
    }
    contacts: dict[str, list[Any]] = {
        name: [] for name in ("ids", "residents", "relation", "name", "phone", "phone_index")
    }
    for id_, plan in wanted:
        key = own[id_]
        if plan.numbers:
            numbers["residents"].append(id_)
            for column in ("id_card", "phone"):
                value = plan.numbers.get(column)
                place = Place("identities", column, str(id_))
                numbers[column].append(value and key.seal(value, place))
                numbers[f"{column}_index"].append(
                    value and keys.index(PURPOSES["identities", column], value)
                )
        if plan.contact:
            relative, phone = uuid4(), plan.values.get("contact_phone")
            contacts["ids"].append(relative)
            contacts["residents"].append(id_)
            contacts["relation"].append(plan.values.get("relation", "家属"))
            contacts["name"].append(
                key.seal(plan.values["contact"], Place("relatives", "name", str(relative)))
            )
            contacts["phone"].append(
                phone and key.seal(phone, Place("relatives", "phone", str(relative)))
            )
            contacts["phone_index"].append(
                phone and keys.index(PURPOSES["relatives", "phone"], phone)
            )
    if numbers["residents"]:
        found["set_identities"] = dict(numbers)
    if contacts["ids"]:
        found["add_relatives"] = dict(contacts)
    return found


async def _write_devices(
    connection: Connection, plans: Sequence[Plan], told: Progress
) -> list[DeviceSecret]:
    made: list[DeviceSecret] = []
    for start in range(0, len(plans), SLICE):
        part = plans[start : start + SLICE]
        new = [plan for plan in part if plan.known is None]
        keys = await _add_devices(connection, new, made)
        changed = [plan for plan in part if isinstance(plan.known, KnownDevice)]
        keys |= {
            id(plan): plan.known.key for plan in changed if isinstance(plan.known, KnownDevice)
        }
        if changed:
            await connection.execute(
                _SQL["change_devices"],
                {
                    "key": [keys[id(plan)] for plan in changed],
                    "kind": [plan.values.get("kind") for plan in changed],
                    "name": [plan.values.get("name") for plan in changed],
                    "place_id": [plan.place_id for plan in changed],
                },
            )
        given = [
            plan for plan in part
            if plan.resident_id is not None
            and (plan.known is None or "resident" in plan.row.changes)
        ]  # fmt: skip
        if given:
            parameters = {
                "keys": [keys[id(plan)] for plan in given],
                "residents": [plan.resident_id for plan in given],
            }
            await connection.execute(_SQL["end_assignments"], parameters)
            await connection.execute(_SQL["add_assignments"], parameters)
        await told(start + len(part))
    return made


async def _add_devices(
    connection: Connection, plans: Sequence[Plan], made: list[DeviceSecret]
) -> dict[int, int]:
    """Add devices, each with a secret of its own; return the key of each plan's device."""
    if not plans:
        return {}
    named = {
        plan.values.get("id") or f"{plan.values['kind']}-{secrets.token_hex(6)}": plan
        for plan in plans
    }
    own = {id_: new_secret() for id_ in named}
    rows = await connection.execute(
        _SQL["add_devices"],
        {
            "id": list(named),
            "kind": [plan.values["kind"] for plan in plans],
            "name": [plan.values.get("name") for plan in plans],
            "place_id": [plan.place_id for plan in plans],
            "salt": [salt for _, salt, _ in own.values()],
            "secret_hash": [hashed for *_, hashed in own.values()],
        },
    )
    keys = {row["id"]: row["key"] for row in await rows.fetchall()}
    if taken := [plan.row.number for id_, plan in named.items() if id_ not in keys]:
        raise Conflict(
            f"Row {taken[0]}: this device id is taken by a device that you may not see. Choose "
            f"another. 第 {taken[0]} 行：这个设备编号已被别处使用，请换一个。"
        )
    made.extend(DeviceSecret(id_, own[id_][0]) for id_ in named)
    return {id(plan): keys[id_] for id_, plan in named.items()}
