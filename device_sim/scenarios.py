"""Named happenings in a resident's life, each strong and long enough to cross its live rule. Pure.

A scenario bends the moments of one person, makes devices speak at certain times (cues), or silences
them. Short ones run on the wall clock whatever the speed; slow ones (`slow`) on the people's clock,
so that `--speed 60` shows six hours in six minutes. Above speed 120 their plateau becomes shorter
than the rules wait.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from anxin.errors import SettingError
from device_sim.person import DAY_S, HOUR_S, Moment


class Cue(msgspec.Struct, frozen=True):
    """An event that a device of this kind sends so long after the scenario began."""

    after_s: float
    kind: str
    type: str
    detail: dict[str, object] = {}


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What happens, for how long, on which clock, and which devices it needs."""

    name: str
    about: str
    lasts_s: float
    slow: bool = False
    bend: Callable[[Moment, float], Moment] | None = None
    """(what the person would be, seconds since the start) -> what the person is."""
    cues: tuple[Cue, ...] = ()
    silent_kinds: frozenset[str] = frozenset()
    """Devices of these kinds lose their connection without a goodbye."""
    battery: Callable[[float], float] | None = None
    """Seconds since the start -> charge of the wearable in %."""
    measure_every_s: float | None = None
    """Staff take blood pressure and temperature so often meanwhile."""
    needs: frozenset[str] = frozenset()
    history_s: float = 0.0
    """So much of the past is sent first, with its own time stamps."""


def _rise(part: float) -> float:
    """Go smoothly from 0 to 1 while `part` does."""
    part = min(max(part, 0.0), 1.0)
    return part * part * (3 - 2 * part)


def _toward(own: float, target: float, part: float) -> float:
    return own + (target - own) * part


def _after_sos(moment: Moment, elapsed_s: float) -> Moment:
    return replace(moment, hr=min(moment.hr + 12 * (1 - _rise(elapsed_s / 300)), 118))


def _on_the_floor(moment: Moment, elapsed_s: float) -> Moment:
    return replace(
        moment,
        hr=min(moment.hr + 22 * (1 - 0.5 * _rise(elapsed_s / 600)), 118),
        rr=min(moment.rr + 3, 23),
        in_bed=False,
        asleep=False,
        movement=0.0,
        activity=0.0,
        worn=True,
    )


def _fever(moment: Moment, elapsed_s: float) -> Moment:
    over = 1 - _rise((elapsed_s - 7 * HOUR_S) / HOUR_S)
    part = _rise(elapsed_s / (2 * HOUR_S)) * over
    # Heart and breath are ahead of the thermometer, as in a chest infection.
    early = _rise(elapsed_s / HOUR_S) * over
    return replace(
        moment,
        temp=_toward(moment.temp, 39.5, part),
        hr=min(moment.hr + 48 * early, 117),
        rr=min(moment.rr + 8 * early, 22.8),
        spo2=moment.spo2 - 2.5 * early,
        in_bed=moment.in_bed or early > 0.3,
        activity=moment.activity * (1 - 0.8 * part),
        worn=True,
    )


def _sepsis(moment: Moment, elapsed_s: float) -> Moment:
    part = _rise(elapsed_s / (6 * HOUR_S)) * (1 - _rise((elapsed_s - 11 * HOUR_S) / HOUR_S))
    return replace(
        moment,
        rr=_toward(moment.rr, 33, part),
        hr=_toward(moment.hr, 138, part),
        temp=_toward(moment.temp, 39.3, part),
        spo2=_toward(moment.spo2, 86, part),
        sbp=_toward(moment.sbp, 80, part),
        dbp=_toward(moment.dbp, 44, part),
        in_bed=True,
        asleep=False,
        movement=0.04,
        activity=0.0,
        worn=True,
    )


APNEA_CYCLE_S: Final = 90.0
APNEA_FROM_S, APNEA_TO_S = 20.0, 60.0


def _apnea(moment: Moment, elapsed_s: float) -> Moment:
    into_s = elapsed_s % APNEA_CYCLE_S
    breathless = APNEA_FROM_S <= into_s < APNEA_TO_S
    # Saturation follows breathing half a minute late.
    dip = _rise((into_s - 30) / 30) if into_s < 70 else 1 - _rise((into_s - 70) / 20)
    return replace(
        moment,
        rr=0.0 if breathless else moment.rr,
        spo2=moment.spo2 - 9 * dip,
        hr=moment.hr - (6 if breathless else -8),
        in_bed=True,
        asleep=True,
        movement=0.0,
        activity=0.0,
        worn=True,
    )


BED_LEFT_S: Final = 11 * 60.0
"""The rules about leaving the bed want ten minutes in it first."""
BED_FOUND_S: Final = BED_LEFT_S + 40 * 60


def _wandering(moment: Moment, elapsed_s: float) -> Moment:
    if BED_LEFT_S <= elapsed_s < BED_FOUND_S:
        return replace(
            moment, in_bed=False, asleep=False, movement=0.0, activity=0.4, hr=max(moment.hr, 78)
        )
    return replace(moment, in_bed=True, asleep=elapsed_s < BED_LEFT_S, activity=0.0)


def _draining(elapsed_s: float) -> float:
    """Fall from 20 % to 2 % within a quarter of an hour."""
    return max(20 - 18 * elapsed_s / 900, 2)


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="sos",
            about="the call button is pressed",
            lasts_s=300,
            bend=_after_sos,
            cues=(Cue(0, "call_button", "sos"),),
            needs=frozenset({"call_button"}),
        ),
        Scenario(
            name="fall",
            about="a fall, felt by the wearable; the person stays on the floor",
            lasts_s=600,
            bend=_on_the_floor,
            cues=(Cue(0, "wearable", "fall", {"impact_g": 3.4}),),
            needs=frozenset({"wearable"}),
        ),
        Scenario(
            name="fever",
            about="heart and breath up in an hour, 39.5 °C in two, for five more (people's clock)",
            lasts_s=8 * HOUR_S,
            slow=True,
            bend=_fever,
            measure_every_s=600,
            needs=frozenset({"wearable"}),
        ),
        Scenario(
            name="sepsis",
            about="breathing, heart and temperature up, oxygen and pressure down over six hours",
            lasts_s=12 * HOUR_S,
            slow=True,
            bend=_sepsis,
            measure_every_s=600,
            needs=frozenset({"bed_sensor", "wearable"}),
        ),
        Scenario(
            name="night_wandering",
            about="out of bed for 40 minutes, out of the door (an alarm from 22:00 to 06:00)",
            lasts_s=BED_FOUND_S + 300,
            bend=_wandering,
            cues=(
                Cue(BED_LEFT_S + 240, "door", "door_open"),
                Cue(BED_LEFT_S + 250, "door", "door_closed"),
                Cue(BED_LEFT_S + 420, "wearable", "geofence_exit"),
                Cue(BED_FOUND_S - 240, "wearable", "geofence_return"),
                Cue(BED_FOUND_S - 130, "door", "door_open"),
                Cue(BED_FOUND_S - 120, "door", "door_closed"),
            ),
            needs=frozenset({"bed_sensor"}),
        ),
        Scenario(
            name="apnea",
            about="breathing stops for 40 s, six times, while asleep",
            lasts_s=6 * APNEA_CYCLE_S,
            bend=_apnea,
            cues=tuple(
                Cue(APNEA_CYCLE_S * cycle + APNEA_FROM_S + 22, "bed_sensor", "apnea", {"s": 22})
                for cycle in range(6)
            ),
            needs=frozenset({"bed_sensor"}),
        ),
        Scenario(
            name="silent_device",
            about="the bed mat loses its connection for ten minutes",
            lasts_s=600,
            silent_kinds=frozenset({"bed_sensor"}),
            needs=frozenset({"bed_sensor"}),
        ),
        Scenario(
            name="flat_battery",
            about="the wearable's battery falls from 20 % to 2 % in a quarter of an hour",
            lasts_s=1800,
            battery=_draining,
            needs=frozenset({"wearable"}),
        ),
        Scenario(
            name="normal_week",
            about="nobody is ill; the week before now is sent first, as history",
            lasts_s=0,
            # A little under seven days, beyond which the platform flags time stamps.
            history_s=7 * DAY_S - HOUR_S,
        ),
    )
}


def scenario(name: str) -> Scenario:
    """Return the scenario of this name; raise SettingError with the names that there are."""
    try:
        return SCENARIOS[name]
    except KeyError:
        raise SettingError(
            f"There is no scenario {name!r}. Choose from: {', '.join(SCENARIOS)}."
        ) from None


class Appearance(msgspec.Struct, frozen=True):
    """A scenario that happens to one person from `start_s` (epoch seconds) on."""

    scenario: Scenario
    person: int
    start_s: float

    def elapsed_s(self, now_s: float, speed: float) -> float | None:
        """Return the seconds since it began, on its own clock; None when it is not going on."""
        elapsed_s = (now_s - self.start_s) * (speed if self.scenario.slow else 1.0)
        return elapsed_s if 0 <= elapsed_s < self.scenario.lasts_s else None

    def over(self, now_s: float, speed: float) -> bool:
        """Return whether it has ended a good while ago, so that no late beat needs it."""
        return self.elapsed_s(now_s - 60, speed) is None and now_s > self.start_s + 60
