# ruff: noqa: E501  # what is told in two languages
"""Whom a row of a list is about, and what it would change: known people and devices. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import msgspec

from anxin.imports import (
    Fault,
    Faulty,
    KnownPlace,
    Places,
    Row,
    Sheet,
    names_of,
    read_person,
    read_values,
    readers,
)

PLAIN: Final = ("name", "sex", "born", "care_level", "fall_risk", "wander_risk", "note")
"""Fields of a resident that are compared and stored as they are."""
Indexes = Callable[[str], list[bytes]]
"""The blind indexes under which a number may stand."""


class KnownPerson(msgspec.Struct, frozen=True):
    """A resident on record; numbers only as their blind indexes."""

    id: int
    name: str
    sex: str
    born: date | None
    place_id: int
    care_level: int | None
    fall_risk: bool
    wander_risk: bool
    note: str
    card: bytes | None
    phone: bytes | None
    contacts: list[bytes]


class KnownDevice(msgspec.Struct, frozen=True):
    """A device on record, and who has it."""

    key: int
    id: str
    kind: str
    name: str
    place_id: int | None
    resident_id: int | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What a file names, to be looked up at once."""

    places: frozenset[str]
    ids: frozenset[int]
    names: frozenset[str]
    cards: frozenset[str]
    devices: frozenset[str]


@dataclass(frozen=True, slots=True)
class Known:
    """What is on record of all that a file names, as far as the caller may see it."""

    places: Places
    default: KnownPlace | None
    people: list[KnownPerson]
    devices: list[KnownDevice]
    card_indexes: Indexes
    phone_indexes: Indexes
    contact_indexes: Indexes


@dataclass(slots=True)
class Plan:
    """What is to be stored for one row; `bed` is a place that is not there yet: below, its name."""

    row: Row
    values: dict[str, Any]
    place_id: int | None = None
    bed: tuple[int, str] | None = None
    resident_id: int | None = None
    known: KnownPerson | KnownDevice | None = None
    numbers: dict[str, str] = field(default_factory=dict)
    """Of `id_card` and `phone` those that differ from what is stored."""
    contact: bool = False


def asked_for(sheet: Sheet, today: date) -> Asked:
    """Return what must be looked up to judge a file."""
    read = readers(sheet.kind, today)
    found: dict[str, set[Any]] = {name: set() for name in Asked.__slots__}
    where = {"id": "ids", "name": "names", "id_card": "cards"} if sheet.kind == "residents" else {
        "id": "devices", "resident": "names", "resident_card": "cards", "resident_id": "ids",
    }  # fmt: skip
    for row in sheet.rows:
        for field_, set_ in where.items():
            if field_ in row.cells:
                try:
                    found[set_].add(read[field_](row.cells[field_]))
                except Faulty:
                    continue  # told when the row is judged
        for field_ in ("place", "bed"):
            if field_ in row.cells:
                found["places"].update(names_of(row.cells[field_]))
    return Asked(**{name: frozenset(values) for name, values in found.items()})


def judge(sheet: Sheet, known: Known, today: date) -> list[Plan]:
    """Say of every row what becomes of it, in the row, and return what is to be stored.

    The plan of a row that is at fault, left out or the same as what is stored is to be passed by.
    """
    people = _People(known.people)
    devices = {one.id: one for one in known.devices}
    read = readers(sheet.kind, today)
    seen: dict[tuple[object, ...], int] = {}
    plans = []
    for row in sheet.rows:
        if row.action == "left_out":
            continue
        row.faults, row.hints, row.changes, row.id = [], [], [], None
        if sheet.kind == "residents":
            plan = _person(row, read_person(row, read, today), known, people)
        else:
            plan = _device(row, read_values(row, read), known, people, devices)
        _refuse_twins(plan, sheet.kind, seen)
        row.action = (
            "fault" if row.faults else "create" if plan.known is None
            else "change" if row.changes else "same"
        )  # fmt: skip
        plans.append(plan)
    return plans


class _People:
    """The known people, by whatever may name them."""

    def __init__(self, people: Iterable[KnownPerson]) -> None:
        self.by_id: dict[int, KnownPerson] = {}
        self.by_card: dict[bytes, list[KnownPerson]] = {}
        self.by_name: dict[str, list[KnownPerson]] = {}
        for one in people:
            self.by_id[one.id] = one
            self.by_name.setdefault(one.name, []).append(one)
            if one.card is not None:
                self.by_card.setdefault(one.card, []).append(one)

    def with_card(self, indexes: Iterable[bytes]) -> list[KnownPerson]:
        return [one for index in indexes for one in self.by_card.get(index, ())]


def _fault(row: Row, field_: str, zh: str, en: str) -> None:
    row.faults.append(Fault(field_, zh, en))


def _place(row: Row, values: Mapping[str, Any], known: Known) -> KnownPlace | None:
    """Return the place that a row names, if it does."""
    if "place" not in values:
        return None
    try:
        return known.places.find(values["place"])
    except Faulty as fault:
        _fault(row, "place", fault.zh, fault.en)
        return None


def _person(row: Row, values: dict[str, Any], known: Known, people: _People) -> Plan:
    plan = Plan(row, values)
    place = _place(row, values, known)
    if place is None and "place" not in row.cells and ("bed" in values or "id" not in values):
        place = known.default
    if place is not None:
        plan.place_id = place.id
        if "bed" in values:
            bed = known.places.bed(place, values["bed"])
            plan.place_id = bed.id if bed else None
            plan.bed = None if bed else (place.id, values["bed"])
    plan.known = match = _match(row, values, plan, known, people)
    if match is None:
        if "id" not in row.cells:
            _need_for_new(row, plan)
        plan.numbers = {one: values[one] for one in ("id_card", "phone") if one in values}
        plan.contact = "contact" in values
        return plan
    row.id = str(match.id)
    if "place" not in row.cells and "bed" not in row.cells:
        plan.place_id = None  # they stay where they are
    row.changes = [
        name for name in PLAIN
        if name in values and values[name] != getattr(match, name)
        and not (name == "sex" and values[name] == "unknown")
    ]  # fmt: skip
    if plan.bed or plan.place_id not in (None, match.place_id):
        row.changes.append("bed" if "bed" in values else "place")
    stored = {
        "id_card": (match.card, known.card_indexes),
        "phone": (match.phone, known.phone_indexes),
    }
    for name, (index, indexes) in stored.items():
        if name in values and index not in indexes(values[name]):
            plan.numbers[name] = values[name]
            row.changes.append(name)
    if "contact" in values:
        _match_contact(plan, match, known)
    return plan


def _match(
    row: Row, values: Mapping[str, Any], plan: Plan, known: Known, people: _People
) -> KnownPerson | None:
    """Return who on record this is: by number, by ID card, else by name, birthday and place."""
    if "id" in values:
        found = people.by_id.get(values["id"])
        if found is None:
            _fault(row, "id", "没有这个编号的老人，或不归您管。新登记的人请把编号留空。",
                   "There is no resident of this number: leave it empty for somebody new.")  # fmt: skip
        return found
    cards = known.card_indexes(values["id_card"]) if "id_card" in values else []
    same = people.with_card(cards)
    if not same and "name" in values:
        same = [
            one for one in people.by_name.get(values["name"], ())
            if plan.place_id is not None and one.place_id == plan.place_id
            and (one.born is None or "born" not in values or one.born == values["born"])
            and (one.card is None or not cards)
        ]  # fmt: skip
        if not same:
            _hint_at_namesakes(row, values, people)
    if len(same) > 1:
        _fault(row, "", "档案里有不止一个人与这一行相符，请填写编号。",
               "More than one resident fits this row: give the number.")  # fmt: skip
    return same[0] if len(same) == 1 else None


def _hint_at_namesakes(row: Row, values: Mapping[str, Any], people: _People) -> None:
    born = values.get("born")
    others = [one for one in people.by_name.get(values["name"], ()) if born and one.born == born]
    if others:
        row.hints.append(Fault(
            "name", "别处已有同名、同日出生的人。如果是同一个人，请填写编号。",
            "Elsewhere lives somebody of this name and birthday. If it is the same person, give "
            f"the number: {others[0].id}."))  # fmt: skip


def _need_for_new(row: Row, plan: Plan) -> None:
    if "name" not in row.cells:
        _fault(row, "name", "缺少姓名。", "The name is missing.")
    if plan.place_id is None and plan.bed is None and "place" not in row.cells:
        _fault(row, "place", "没有写所在地点，也没有选默认地点。",
               "No place is named, and none was chosen for such rows.")  # fmt: skip


def _match_contact(plan: Plan, match: KnownPerson, known: Known) -> None:
    phone = plan.values.get("contact_phone")
    if phone is None:
        plan.row.hints.append(Fault(
            "contact", "联系人没有电话，无法判断是否已经登记，所以不会添加。",
            "Without a number nobody can tell whether this contact is on record: not added."))  # fmt: skip
    elif not set(match.contacts) & set(known.contact_indexes(phone)):
        plan.contact = True
        plan.row.changes.append("contact")


def _device(
    row: Row, values: dict[str, Any], known: Known, people: _People,
    devices: Mapping[str, KnownDevice],
) -> Plan:  # fmt: skip
    plan = Plan(row, values)
    place = _place(row, values, known)
    plan.place_id = place.id if place else None
    owner = _owner(row, values, plan, known, people)
    plan.resident_id = owner.id if owner else None
    plan.known = match = devices.get(values.get("id", ""))
    if match is None:
        if "kind" not in row.cells:
            _fault(row, "kind", "缺少设备类型。", "The kind is missing.")
        if place is None and "place" not in row.cells and known.default is not None:
            plan.place_id = known.default.id
        return plan
    row.id = match.id
    if match.revoked:
        _fault(row, "id", "这个设备已停用，请在“设备”里重新登记。",
               "This device was revoked: enrol it anew under Devices.")  # fmt: skip
    row.changes = [one for one in ("kind", "name")
                   if one in values and values[one] != getattr(match, one)]  # fmt: skip
    if plan.place_id not in (None, match.place_id):
        row.changes.append("place")
    if plan.resident_id not in (None, match.resident_id):
        row.changes.append("resident")
        if match.resident_id is not None:
            row.hints.append(Fault("resident", "这个设备现在归别的老人使用，导入后会换人。",
                                   "Another resident has this device now and will lose it."))  # fmt: skip
    return plan


def _owner(
    row: Row, values: Mapping[str, Any], plan: Plan, known: Known, people: _People
) -> KnownPerson | None:
    """Return who shall have a device: by number, by ID card, else by a name."""
    found: list[KnownPerson]
    if "resident_id" in values:
        one = people.by_id.get(values["resident_id"])
        field_, found = "resident_id", [one] if one else []
    elif "resident_card" in values:
        field_, found = (
            "resident_card",
            [*people.with_card(known.card_indexes(values["resident_card"]))],
        )
    elif "resident" in values:
        field_, found = "resident", [*people.by_name.get(values["resident"], ())]
        here = [one for one in found if one.place_id == plan.place_id]
        found = here or found
    else:
        return None
    if len(found) > 1:
        _fault(row, field_, "有不止一位老人叫这个名字，请填写老人编号或身份证号。",
               "More than one resident is called so: give number or ID card.")  # fmt: skip
    elif not found:
        _fault(row, field_, "没有这位老人，或不归您管。请先导入老人名单。",
               "There is no such resident, or not in your care. Import the people first.")  # fmt: skip
    elif "resident" in values and found[0].name != values["resident"]:
        _fault(row, "resident", "姓名与编号（身份证号）对应的人不符。",
               "The name is not that of the number or ID card.")  # fmt: skip
    return found[0] if len(found) == 1 else None


def _refuse_twins(plan: Plan, kind: str, seen: dict[tuple[object, ...], int]) -> None:
    """Note a fault where an earlier row is about the same person or device."""
    row, values = plan.row, plan.values
    keys: list[tuple[object, ...]] = [("id", values["id"])] if "id" in values else []
    if kind == "residents":
        if isinstance(plan.known, KnownPerson):
            keys.append(("id", plan.known.id))
        if "id_card" in values:
            keys.append(("card", values["id_card"]))
        elif "name" in values and "id" not in values:
            keys.append(("who", values["name"], values.get("born"), plan.place_id, plan.bed))
    for key in dict.fromkeys(keys):
        earlier = seen.setdefault(key, row.number)
        if earlier != row.number:
            _fault(row, "", f"与第 {earlier} 行重复。", f"It is the same as row {earlier}.")
            return
