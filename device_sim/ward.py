"""A simulated town: which places, residents and devices a simulation of some size has. Pure."""

from datetime import datetime
from typing import Final

from device_sim.person import make_people
from device_sim.provision import Plan, PlannedDevice, PlannedPlace, PlannedResident

BEDS: Final = 60
"""Beds of one facility; two in each room, twelve rooms on a floor."""
HOMES: Final = 40
"""Home care beds of one village."""

# Short names that end device ids, by kind.
CARRIED: Final = {
    "bed": "bed_sensor",
    "watch": "wearable",
    "button": "call_button",
    "cuff": "cuff",
    "thermo": "thermometer",
}
IN_A_HOME: Final = {"smoke": "smoke", "door": "door", "motion": "other", "gateway": "gateway"}


def plan_ward(count: int, seed: int, since: datetime | None = None) -> Plan:
    """Return the plan for `count` residents: two of three in facilities, the third at home.

    A larger plan of the same seed holds the smaller one. `since` attributes earlier readings too.
    """
    prefix = "sim" if seed == 1 else f"sim{seed}"
    places = {
        "district": PlannedPlace("district", None, "district", "永川区"),
        "town": PlannedPlace("town", "district", "town", "中山路街道"),
    }
    residents: list[PlannedResident] = []
    devices: list[PlannedDevice] = []

    def place(key: str, parent: str, kind: str, name: str) -> str:
        places.setdefault(key, PlannedPlace(key, parent, kind, name))
        return key

    for i, person in enumerate(make_people(count, seed)):
        group, third = divmod(i, 3)
        if third < 2:
            house, bed = divmod(group * 2 + third, BEDS)
            floor, room = divmod(bed // 2, 12)
            number = f"{floor + 1}{room + 1:02}"
            facility = place(
                f"f{house + 1}", "town", "facility", _numbered("安心养老院（模拟）", "分院", house)
            )
            in_room = place(f"f{house + 1}-r{number}", facility, "room", number)
            at = place(f"{in_room}-b{bed % 2 + 1}", in_room, "bed", f"{bed % 2 + 1}床")
            kinds = CARRIED
            if bed == 0:
                devices.append(PlannedDevice(f"{prefix}-{facility}-gateway", "gateway", facility))
            if bed % 2 == 0:
                devices.append(PlannedDevice(f"{prefix}-{in_room}-smoke", "smoke", in_room))
        else:
            village, home = divmod(group, HOMES)
            place(f"v{village + 1}", "town", "village", _numbered("兴龙村", "组", village))
            at = place(f"v{village + 1}-h{home + 1}", f"v{village + 1}", "home", f"{home + 1}号")
            kinds = CARRIED | IN_A_HOME
        key = f"{i + 1:04}"
        residents.append(
            PlannedResident(key, at, person.name, person.born, person.sex, person.care_level)
        )
        devices += [
            PlannedDevice(f"{prefix}-{key}-{short}", kind, at, key, since)
            for short, kind in kinds.items()
        ]
    return Plan(tuple(places.values()), tuple(residents), tuple(devices))


def _numbered(name: str, unit: str, number: int) -> str:
    return name if number == 0 else f"{name}{number + 1}{unit}"
