"""Simulated people: a daily rhythm and vital signs, the same for the same seed. Pure.

Nothing is stepped: every value is a function of (seed, person, time), so any moment of any day can
be asked for in any order, for thousands of people at once, and comes out the same each time.
"""

from dataclasses import dataclass
from datetime import date, timedelta, timezone
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from device_sim.dice import Dice, Floats, Ints

Flags = npt.NDArray[np.bool_]

LOCAL: Final = timezone(timedelta(hours=8))
"""People live by the one clock of China."""
DAY_S: Final = 86_400.0
HOUR_S: Final = 3_600.0
_UTC_OFFSET_S: Final = 8 * HOUR_S

# One character a surname, two a given name.
SURNAMES: Final = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩"
    "唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎"
)
FEMALE_NAMES: Final = (
    "秀英桂英秀兰玉兰淑珍桂兰玉珍凤英素珍淑华玉梅秀珍兰英桂芳淑芳"
    "玉华春兰月英金凤惠芳美珍素芬翠兰碧华清秀庆芳莲芝友珍开秀光碧"
)
MALE_NAMES: Final = (
    "建国国华志明德明文华永福长贵正荣光明世德明德兴发成林福生永康"
    "大江学文庆云天成绍清维新忠义国安家富启才显荣昌华守信朝阳远志"
)


class Person(msgspec.Struct, frozen=True):
    """Who somebody is, as far as the simulation needs to know."""

    name: str
    sex: Literal["female", "male", "unknown"]
    born: date | None = None
    care_level: int | None = None


class Moment(msgspec.Struct, frozen=True):
    """One person at one time, before any device has looked.

    hr, rr in /min; spo2 in %; temp in °C; sbp, dbp in mmHg; movement and activity from 0 to 1;
    steps since midnight; `worn` = the wrist wearable is on the wrist.
    """

    hr: float
    rr: float
    spo2: float
    temp: float
    sbp: float
    dbp: float
    movement: float
    activity: float
    steps: float
    in_bed: bool
    asleep: bool
    worn: bool


def make_people(count: int, seed: int) -> list[Person]:
    """Return `count` people who cannot be mistaken for real ones; more people, same first ones."""
    who = np.arange(count, dtype=np.int64)
    dice = Dice(seed, count)
    female = dice.uniform("sex", who) < 0.56
    age = 66 + 28 * dice.uniform("age", who) ** 1.2
    birthday = (dice.uniform("birthday", who) * 365).astype(np.int64)
    frailty = 0.9 * (age - 66) / 28 + 0.8 * dice.uniform("frailty", who)
    care = np.searchsorted([0.35, 0.7, 1.0, 1.35], frailty)
    people = []
    for i in range(count):
        # Each (surname, given name) comes once in every round.
        given = FEMALE_NAMES if female[i] else MALE_NAMES
        surnames, names = len(SURNAMES), len(given) // 2
        lap, surname = divmod(i + seed, surnames)
        round_no = i // (surnames * names)
        at = 2 * ((lap + 7 * surname) % names)
        name = SURNAMES[surname] + given[at : at + 2]
        born = date(2025 - int(age[i]), 1, 1) + timedelta(days=int(birthday[i]))
        label = f"{name}{round_no + 1}" if round_no else name
        people.append(Person(label, "female" if female[i] else "male", born, int(care[i])))
    return people


class Population:
    """The bodies and habits of some people; ask `moments` for their state at any time."""

    def __init__(self, people: list[Person], seed: int) -> None:
        """Draw each one's habits from the seed, the age and the care level."""
        count = len(people)
        who = np.arange(count, dtype=np.int64)
        age = np.array([2025 - p.born.year if p.born else 80 for p in people], dtype=np.float64)
        care = np.array([person.care_level or 0 for person in people], dtype=np.int64)
        male = np.array([person.sex == "male" for person in people])
        self._dice = Dice(seed, count)

        def draw(name: str, mean: float, spread: float, low: float, high: float) -> Floats:
            return np.clip(mean + spread * self._dice.normal(name, who), low, high)

        self._hr = draw("hr", 69, 4, 63, 77) - 1.5 * male
        self._rr = draw("rr", 15.5, 0.9, 14, 17.5)
        self._spo2 = draw("spo2", 97.2, 0.6, 96, 98.3)
        self._temp = draw("temp", 36.45, 0.12, 36.2, 36.7)
        self._sbp = draw("sbp", 128, 7, 118, 144) + 0.25 * np.clip(age - 75, -10, 20)
        self._pulse_pressure = draw("pulse pressure", 52, 5, 42, 64)
        self._mobility = np.array([1.0, 0.8, 0.55, 0.3, 0.08])[np.clip(care, 0, 4)]
        self._steps_a_day = draw("steps", 4800, 1500, 1500, 9000) * self._mobility
        self._bedtime = draw("bedtime", 21.2, 0.25, 20.6, 21.7) * HOUR_S
        self._rising = draw("rising", 6.5, 0.2, 6.15, 7.0) * HOUR_S
        self._in_bed_by_day = care >= 4

    def moments(self, who: Ints, at_s: Floats) -> list[Moment]:
        """Return person `who[i]` at `at_s[i]` (epoch seconds), for every i."""
        days = self._days(who, at_s)
        hour = days.second / HOUR_S
        in_bed, settled_s = self._rest(days)
        asleep = in_bed & (settled_s > 600)
        activity = np.where(in_bed, 0.0, self._activity(days, at_s))
        movement = np.where(in_bed, self._movement(who, at_s, asleep), 0.0)
        hr = (
            self._hr[who]
            + np.where(asleep, -6.0, 0.0)
            + np.where(in_bed, 0.0, 4.0 + 26.0 * activity)
            + 1.6 * self._dice.drift("hr slow", who, at_s, 1800)
            + 1.1 * self._dice.drift("hr fast", who, at_s, 40)
        )
        rr = (
            self._rr[who]
            + np.where(asleep, -1.3, 0.0)
            + 3.2 * activity
            + 0.6 * self._dice.drift("rr slow", who, at_s, 900)
            + 0.4 * self._dice.drift("rr fast", who, at_s, 30)
        )
        spo2 = (
            self._spo2[who]
            + np.where(asleep, -0.8, 0.0)
            + 0.5 * self._dice.drift("spo2", who, at_s, 300)
        )
        temp = (
            self._temp[who]
            + 0.24 * np.cos(2 * np.pi * (hour - 17) / 24)
            + 0.05 * self._dice.drift("temp", who, at_s, 1200)
        )
        sbp = (
            self._sbp[who]
            + np.where(asleep, -13.0, 0.0)
            + 9.0 * activity
            + 3.5 * self._dice.drift("sbp", who, at_s, 2400)
        )
        dbp = sbp - self._pulse_pressure[who] + 2.0 * self._dice.drift("dbp", who, at_s, 2400)
        # One hour of every evening the wearable is on its charger.
        worn = ~((hour >= 19.25) & (hour < 20.25))
        columns = (
            np.clip(hr, 52, 116),
            np.clip(rr, 11.5, 22.5),
            np.clip(spo2, 93, 100),
            temp,
            np.clip(sbp, 96, 172),
            np.clip(dbp, 45, 105),
            movement,
            activity,
            self._steps(days),
            in_bed,
            asleep,
            worn,
        )
        return [Moment(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]

    def _days(self, who: Ints, at_s: Floats) -> "_Days":
        """Return the local day of each one, with the hours of rising and of going to bed."""
        local_s = at_s + _UTC_OFFSET_S
        day = np.floor(local_s / DAY_S).astype(np.int64)
        second = local_s % DAY_S
        rising = self._rising[who] + 240 * np.clip(self._dice.normal("rise", who, day), -2, 2)
        bedtime = self._bedtime[who] + 420 * np.clip(self._dice.normal("bed", who, day), -2, 2)
        waking: Floats = np.clip((second - rising) / (bedtime - rising), 0, 1)
        return _Days(who, day, second, rising, bedtime, waking)

    def _rest(self, days: "_Days") -> tuple[Flags, Floats]:
        """Return who is in bed, and for how many seconds already (roughly, for falling asleep)."""
        who, day, second = days.who, days.day, days.second
        rising, bedtime = days.rising, days.bedtime
        night = (second >= bedtime) | (second < rising)
        lain = np.where(second >= bedtime, second - bedtime, second + DAY_S / 12)

        nap_start = (12.6 + 0.7 * self._dice.uniform("nap at", who, day)) * HOUR_S
        nap_s = (40 + 60 * self._dice.uniform("nap for", who, day)) * 60
        naps = self._dice.uniform("naps", who, day) < 0.75
        napping = naps & (second >= nap_start) & (second < nap_start + nap_s)
        lain = np.where(napping, second - nap_start, lain)

        # Totally dependent people sit in a chair for two short spells and are in bed otherwise.
        hour = second / HOUR_S
        in_chair = ((hour >= 9.5) & (hour < 11)) | ((hour >= 15) & (hour < 16.5))
        by_day = self._in_bed_by_day[who] & ~night & ~in_chair
        lain = np.where(by_day & ~napping, 0.0, lain)
        in_bed = night | napping | by_day

        for window, (opens_h, closes_h, likely) in enumerate(
            ((22.75, 24.5, 0.5), (25.0, 27.25, 0.65), (27.75, 29.75, 0.4))
        ):
            # A night belongs to the day on which it began.
            evening = np.where(second < DAY_S / 2, day - 1, day)
            into_s = np.where(second < DAY_S / 2, second + DAY_S, second)
            slot = evening * 4 + window
            goes = self._dice.uniform("toilet", who, slot) < likely
            for_s = (3 + 5 * self._dice.uniform("toilet for", who, slot)) * 60
            room_s = (closes_h - opens_h) * HOUR_S - for_s
            starts = opens_h * HOUR_S + room_s * self._dice.uniform("toilet at", who, slot)
            goes &= ~self._in_bed_by_day[who]
            in_bed &= ~(goes & (into_s >= starts) & (into_s < starts + for_s))
            back_s = into_s - starts - for_s
            lain = np.where(goes & (back_s >= 0), np.minimum(lain, back_s), lain)
        return in_bed, lain

    def _activity(self, days: "_Days", at_s: Floats) -> Floats:
        """Return how busy each one is, busiest after each meal."""
        tide = 1 + 0.75 * np.cos(6 * np.pi * days.waking)
        bouts = 1 + 0.5 * self._dice.drift("bouts", days.who, at_s, 600)
        return np.clip(0.3 * self._mobility[days.who] * tide * bouts, 0.02, 1)

    def _steps(self, days: "_Days") -> Floats:
        """Return the steps since midnight: the tide of `_activity`, summed up."""
        part = days.waking
        eager = 0.7 + 0.6 * self._dice.uniform("walks", days.who, days.day)
        total = self._steps_a_day[days.who] * eager
        walked: Floats = np.floor(total * (part + 0.75 * np.sin(6 * np.pi * part) / (6 * np.pi)))
        return walked

    def _movement(self, who: Ints, at_s: Floats, asleep: Flags) -> Floats:
        """Return the stirring that a mat feels: little in sleep, with a turn now and then."""
        slot = np.floor(at_s / 10).astype(np.int64)
        turn = self._dice.uniform("turn", who, slot)
        size = self._dice.uniform("turn size", who, slot)
        stirring = np.where(asleep, 0.02, 0.12) + 0.03 * size
        return np.where(turn < np.where(asleep, 0.015, 0.1), 0.3 + 0.5 * size, stirring)


@dataclass(frozen=True, slots=True)
class _Days:
    """The local day of each (person, time): its number, and seconds of it.

    `waking` is how much of the waking day has passed, 0 to 1.
    """

    who: Ints
    day: Ints
    second: Floats
    rising: Floats
    bedtime: Floats
    waking: Floats
