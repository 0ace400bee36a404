"""Simulated devices: what each kind makes of its person's moment. Pure."""

from collections.abc import Callable
from typing import Final

import msgspec

from device_sim.payload import Fields
from device_sim.person import DAY_S, HOUR_S, Moment

FIRMWARE: Final = "1.4.2"


class Rhythm(msgspec.Struct, frozen=True, kw_only=True):
    """How often a kind of device speaks.

    `telemetry_s` seconds between readings of a stream, or `hours` of the people's day at which a
    reading is taken; `state_s` between heartbeats; `look_s` between looks at the surroundings
    (doors, motion); `mains` = no battery to report.
    """

    state_s: float
    telemetry_s: float | None = None
    hours: tuple[float, ...] = ()
    look_s: float | None = None
    mains: bool = False


RHYTHMS: Final = {
    "bed_sensor": Rhythm(telemetry_s=5, state_s=60, mains=True),
    "wearable": Rhythm(telemetry_s=60, state_s=900),
    "call_button": Rhythm(state_s=60),
    "cuff": Rhythm(hours=(7.25, 15.5, 20.5), state_s=3600),
    "thermometer": Rhythm(hours=(7.0, 16.0), state_s=3600),
    "smoke": Rhythm(state_s=600),
    "door": Rhythm(look_s=600, state_s=600),
    "other": Rhythm(look_s=120, state_s=600),
    "gateway": Rhythm(telemetry_s=300, state_s=60, mains=True),
}
"""By kind of the contract; `other` is a motion sensor here."""


def telemetry(
    kind: str, moment: Moment | None, luck: float, battery: float, hour: float
) -> dict[str, object]:
    """Return the fields that a device measures now, without a time stamp.

    `moment` is None for a device without a resident; `luck` in [0, 1) decides about gaps.
    """
    if kind == "gateway":
        return _gateway(hour)
    if moment is None or kind not in _MEASURES:
        return {}
    return _MEASURES[kind](moment, luck, battery)


def state(kind: str, luck: float, battery: float) -> dict[str, object]:
    """Return a heartbeat."""
    fields: dict[str, object] = {"online": True, "rssi": round(-48 - 22 * luck)}
    if not RHYTHMS[kind].mains:
        fields["battery"] = round(battery)
    fields["firmware"] = FIRMWARE
    return fields


WILL: Final[Fields] = {"online": False}


def sees(kind: str, moment: Moment, luck: float) -> str | None:
    """Return the event type that a door or motion sensor reports at this look, if any."""
    if moment.in_bed:
        return None
    if kind == "door":
        return "door_open" if luck < 0.25 * moment.activity else None
    return "motion" if luck < 0.2 + moment.activity else None


def charge(kind: str, own_s: float, luck: float) -> float:
    """Return a healthy battery's charge in %; `luck` sets devices apart."""
    if kind == "wearable":
        # Charged each evening from 19:15 to 20:15, local time.
        since_h = ((own_s + 8 * HOUR_S) % DAY_S / HOUR_S - 20.25) % 24
        empty = 100 - 23 * (1.6 + luck)
        if since_h > 23:
            return empty + (100 - empty) * (since_h - 23)
        return 100 - since_h * (1.6 + luck)
    return 60 + 38 * luck


def _bed_sensor(moment: Moment, luck: float, battery: float) -> dict[str, object]:
    del battery  # on mains
    if not moment.in_bed:
        return {"movement": 0.0, "presence": "absent"}
    fields: dict[str, object] = {}
    # A turning body hides the heart, and sometimes the mat just loses it.
    if moment.movement < 0.5 and luck > 0.01:
        fields["hr"] = round(moment.hr)
        fields["rr"] = round(moment.rr, 1)
    return fields | {"movement": round(moment.movement, 2), "presence": "present"}


def _wearable(moment: Moment, luck: float, battery: float) -> dict[str, object]:
    fields: dict[str, object] = {"steps": int(moment.steps), "battery": round(battery)}
    if moment.worn:
        fields["hr"] = round(moment.hr)
        fields["temp"] = round(moment.temp, 1)
        # Hands move now and then however quietly somebody sits.
        gesture = 0.25 if moment.activity > 0 and luck > 0.8 else 0.0
        fields["movement"] = round(min(moment.activity + gesture, 1.0), 2)
        # Light through a moving wrist gives no saturation.
        if moment.activity < 0.5 and luck > 0.04:
            fields["spo2"] = round(moment.spo2)
    return fields


def _cuff(moment: Moment, luck: float, battery: float) -> dict[str, object]:
    del luck, battery
    return {"sbp": round(moment.sbp), "dbp": round(moment.dbp), "hr": round(moment.hr)}


def _thermometer(moment: Moment, luck: float, battery: float) -> dict[str, object]:
    del luck, battery
    return {"temp": round(moment.temp, 1)}


def _gateway(hour: float) -> dict[str, object]:
    warmth = max(0.0, 1 - abs(hour - 15) / 9)
    return {"room_temp": round(20.5 + 3 * warmth, 1), "humidity": round(62 - 8 * warmth)}


_MEASURES: Final[dict[str, Callable[[Moment, float, float], dict[str, object]]]] = {
    "bed_sensor": _bed_sensor,
    "wearable": _wearable,
    "cuff": _cuff,
    "thermometer": _thermometer,
}
