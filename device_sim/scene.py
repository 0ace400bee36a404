"""The simulation itself: who sends what at which moment. Pure; the clock is an argument."""

import heapq
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec
import numpy as np

from device_sim import devices as models
from device_sim.devices import RHYTHMS
from device_sim.dice import Dice, Floats
from device_sim.payload import EVENT, STATE, TELEMETRY, Outgoing, encode, pack
from device_sim.person import DAY_S, HOUR_S, Moment, Person, Population
from device_sim.provision import Device, Resident
from device_sim.scenarios import Appearance, Cue

Action = Literal["telemetry", "state", "look", "measure"]

FIRST_MEASURE_S: Final = 120.0
"""Cuffs and thermometers are used once within so many seconds of the start."""
LAG_S: Final = 2.0
"""A beat later than this is left out rather than sent in a burst."""
DOOR_OPEN_S: Final = 15.0
HISTORY_STEP_S: Final = {"bed_sensor": 60.0, "wearable": 300.0, "gateway": 900.0}
"""History is thinner than live: so many seconds between readings."""


class Beat(msgspec.Struct, frozen=True, order=True):
    """Something that a device is going to do; `serial` decides between equal times."""

    due_s: float
    serial: int
    device: int
    what: Action | Cue


class Scene:
    """Residents with devices and what happens to them.

    Times are epoch seconds. The people's own clock starts at `start_s + shift_s` and runs `speed`
    times as fast; streams keep their rhythm on the wall clock. `rate` (readings a second over all
    streams) quickens or slows that rhythm, None leaves it natural.
    """

    def __init__(
        self,
        devices: Iterable[Device],
        *,
        seed: int,
        start_s: float,
        speed: float = 1.0,
        shift_s: float = 0.0,
        rate: float | None = None,
    ) -> None:
        """Seat everybody and plan the first beat of every device."""
        self.devices: Final = tuple(d for d in devices if d.kind in RHYTHMS)
        self._start_s, self._speed, self._shift_s = start_s, speed, shift_s
        residents = {d.resident.id: d.resident for d in self.devices if d.resident is not None}
        seats = {resident_id: seat for seat, resident_id in enumerate(residents)}
        self.residents: Final = tuple(residents.values())
        self._people = Population([_person(r) for r in self.residents], seed)
        self._seat = [seats[d.resident.id] if d.resident else -1 for d in self.devices]
        self._at = {device.id: index for index, device in enumerate(self.devices)}
        self._dice = Dice(seed, len(self.devices))
        self._steady = self._dice.uniform("steady", np.arange(len(self.devices))).tolist()
        self._appearances: list[Appearance] = []
        self._was_in_bed: dict[int, bool] = {}
        self._seq = [0] * len(self.devices)
        self._serial = 0
        self._beats: list[Beat] = []
        streams = sum(1 / s for d in self.devices if (s := RHYTHMS[d.kind].telemetry_s))
        self._pace = rate / streams if rate is not None and streams else 1.0
        self._plan_first_beats()

    @property
    def next_due_s(self) -> float:
        """Return when the next beat is due; infinity when nothing is left to do."""
        return self._beats[0].due_s if self._beats else float("inf")

    def cast(self, needs: frozenset[str], count: int, skip: int = 0) -> list[int]:
        """Return `count` people who have devices of all these kinds, `skip` people further on."""
        kinds: dict[int, set[str]] = {seat: set() for seat in range(len(self.residents))}
        for device, seat in zip(self.devices, self._seat, strict=True):
            if seat >= 0:
                kinds[seat].add(device.kind)
        able = [seat for seat, has in kinds.items() if needs <= has]
        return [able[(skip + k) % len(able)] for k in range(min(count, len(able)))]

    def happen(self, appearance: Appearance) -> None:
        """Let a scenario happen to a person."""
        self._appearances.append(appearance)
        scenario, start_s = appearance.scenario, appearance.start_s
        clock = self._speed if scenario.slow else 1.0
        for index, device in enumerate(self.devices):
            if self._seat[index] != appearance.person:
                continue
            for cue in scenario.cues:
                if cue.kind == device.kind:
                    self._push(start_s + cue.after_s / clock, index, cue)
            if scenario.measure_every_s and RHYTHMS[device.kind].hours:
                step_s = max(scenario.measure_every_s / clock, 30)
                for k in range(1, int(scenario.lasts_s / clock / step_s)):
                    self._push(start_s + k * step_s, index, "measure")

    def cut_off(self, now_s: float) -> frozenset[str]:
        """Return the ids of the devices that have no connection now."""
        if not any(appearance.scenario.silent_kinds for appearance in self._appearances):
            return frozenset()
        return frozenset(
            device.id for i, device in enumerate(self.devices) if self._silent(i, now_s)
        )

    def due(self, now_s: float) -> list[Outgoing]:
        """Return all that is due by `now_s`, and plan what follows."""
        self._appearances = [a for a in self._appearances if not a.over(now_s, self._speed)]
        beats: list[Beat] = []
        while self._beats and self._beats[0].due_s <= now_s:
            beat = heapq.heappop(self._beats)
            self._push_next(beat, now_s)
            if not self._silent(beat.device, beat.due_s):
                beats.append(beat)
        if not beats:
            return []
        moments = self._moments(beats)
        slots = np.array([beat.due_s * 1000 for beat in beats]).astype(np.int64)
        luck = self._dice.uniform("gap", np.array([b.device for b in beats]), slots).tolist()
        sent: list[Outgoing] = []
        for beat, moment, chance in zip(beats, moments, luck, strict=True):
            sent += self._act(beat, moment, chance)
        return sent

    def hello(self, device_id: str, now_s: float) -> Outgoing:
        """Return the state that a device sends when it has connected."""
        return self._state(self._at[device_id], now_s, 0.5)

    def history(self, back_s: float) -> Iterator[tuple[Outgoing, int]]:
        """Yield the time before the start as arrays with own time stamps, device by device.

        With each payload comes the number of readings in it. No scenario reaches back.
        """
        for index, device in enumerate(self.devices):
            rhythm = RHYTHMS[device.kind]
            begin_s = self._start_s - back_s
            if device.kind in HISTORY_STEP_S:
                times = np.arange(begin_s, self._start_s, HISTORY_STEP_S[device.kind])
            elif rhythm.hours:
                own = list(_day_times(rhythm.hours, begin_s + self._shift_s, back_s))
                times = np.array(own) - self._shift_s
            else:
                continue
            readings = (
                {"ts": int(at_s * 1000)} | fields
                for at_s, fields in self._past(index, times)
                if fields
            )
            for payload, count in pack(readings):
                yield Outgoing(device.id, TELEMETRY, payload), count

    def _past(self, index: int, times: Floats) -> Iterator[tuple[float, dict[str, object]]]:
        kind, seat = self.devices[index].kind, self._seat[index]
        own = times + self._shift_s
        moments: list[Moment | None] = [None] * len(times)
        if seat >= 0 and len(times):
            moments = [*self._people.moments(np.full(len(times), seat), own)]
        who = np.full(len(times), index)
        luck = self._dice.uniform("gap", who, (times * 1000).astype(np.int64)).tolist()
        for at_s, moment, chance in zip(times.tolist(), moments, luck, strict=True):
            own_s = at_s + self._shift_s
            battery = models.charge(kind, own_s, self._steady[index])
            yield at_s, models.telemetry(kind, moment, chance, battery, _hour(own_s))

    def _plan_first_beats(self) -> None:
        for index, device in enumerate(self.devices):
            rhythm, part = RHYTHMS[device.kind], self._steady[index]
            if rhythm.telemetry_s:
                self._push(self._start_s + part * rhythm.telemetry_s / self._pace, index, TELEMETRY)
            if rhythm.hours:
                # Once soon after the start, then at the hours of the people's day.
                self._push(self._start_s + part * FIRST_MEASURE_S, index, "measure")
                self._push(self._next_hour_s(index, self._start_s), index, TELEMETRY)
            if rhythm.look_s:
                self._push(self._start_s + part * rhythm.look_s, index, "look")
            self._push(self._start_s + (0.5 + part) * rhythm.state_s, index, STATE)

    def _push(self, due_s: float, device: int, what: Action | Cue) -> None:
        self._serial += 1
        heapq.heappush(self._beats, Beat(due_s, self._serial, device, what))

    def _push_next(self, beat: Beat, now_s: float) -> None:
        rhythm = RHYTHMS[self.devices[beat.device].kind]
        if isinstance(beat.what, Cue) or beat.what == "measure":
            return
        if beat.what == TELEMETRY and rhythm.hours:
            self._push(self._next_hour_s(beat.device, beat.due_s), beat.device, TELEMETRY)
            return
        every_s = {
            TELEMETRY: (rhythm.telemetry_s or 0) / self._pace,
            STATE: rhythm.state_s,
            "look": rhythm.look_s or 0,
        }[beat.what]
        due_s = beat.due_s + every_s
        self._push(due_s if due_s > now_s - LAG_S else now_s + every_s, beat.device, beat.what)

    def _next_hour_s(self, index: int, after_s: float) -> float:
        """Return the wall time of the next planned measurement, up to 40 minutes late each time."""
        own_s = self._own_s(after_s)
        hours = RHYTHMS[self.devices[index].kind].hours
        due_s = next(at for at in _day_times(hours, own_s + 1, 2 * DAY_S))
        late = float(self._dice.uniform("late", np.array([index]), int(due_s))[0])
        return after_s + (due_s - own_s + 2400 * late) / self._speed

    def _moments(self, beats: list[Beat]) -> list[Moment | None]:
        """Return what each beat's person is at its time, scenarios included."""
        seated = [
            k
            for k, beat in enumerate(beats)
            if self._seat[beat.device] >= 0
            and beat.what != STATE
            and not isinstance(beat.what, Cue)
        ]
        moments: list[Moment | None] = [None] * len(beats)
        if not seated:
            return moments
        who = np.array([self._seat[beats[k].device] for k in seated])
        own = np.array([self._own_s(beats[k].due_s) for k in seated])
        for k, seat, moment in zip(
            seated, who.tolist(), self._people.moments(who, own), strict=True
        ):
            bent = moment
            for appearance in self._appearances:
                bend = appearance.scenario.bend
                if appearance.person == seat and bend is not None:
                    elapsed_s = appearance.elapsed_s(beats[k].due_s, self._speed)
                    bent = bend(bent, elapsed_s) if elapsed_s is not None else bent
            moments[k] = bent
        return moments

    def _act(self, beat: Beat, moment: Moment | None, luck: float) -> Iterator[Outgoing]:
        """Yield what one beat makes its device say."""
        index, device = beat.device, self.devices[beat.device]
        if isinstance(beat.what, Cue):
            yield self._event(index, beat.due_s, beat.what.type, beat.what.detail)
        elif beat.what == STATE:
            yield self._state(index, beat.due_s, luck)
        elif beat.what == "look":
            seen = models.sees(device.kind, moment, luck) if moment is not None else None
            if seen is not None:
                yield self._event(index, beat.due_s, seen, {})
            if seen == "door_open":
                self._push(beat.due_s + DOOR_OPEN_S, index, Cue(0, "door", "door_closed"))
        else:
            if device.kind == "bed_sensor" and moment is not None:
                was = self._was_in_bed.get(index)
                self._was_in_bed[index] = moment.in_bed
                if was is not None and was != moment.in_bed:
                    turn = "bed_return" if moment.in_bed else "bed_exit"
                    yield self._event(index, beat.due_s, turn, {})
            battery = self._battery(index, beat.due_s)
            hour = _hour(self._own_s(beat.due_s))
            fields = models.telemetry(device.kind, moment, luck, battery, hour)
            self._seq[index] += 1
            head = {"ts": int(beat.due_s * 1000), "seq": self._seq[index]}
            yield Outgoing(device.id, TELEMETRY, encode(head | fields))

    def _event(self, index: int, at_s: float, what: str, detail: dict[str, object]) -> Outgoing:
        ts = int(at_s * 1000)
        event: dict[str, object] = {"id": f"{what}-{ts}", "type": what, "ts": ts}
        if detail:
            event["detail"] = detail
        return Outgoing(self.devices[index].id, EVENT, encode(event))

    def _state(self, index: int, at_s: float, luck: float) -> Outgoing:
        device = self.devices[index]
        fields = models.state(device.kind, luck, self._battery(index, at_s))
        return Outgoing(device.id, STATE, encode(fields))

    def _battery(self, index: int, at_s: float) -> float:
        kind = self.devices[index].kind
        for appearance in self._appearances:
            drain = appearance.scenario.battery
            if drain and kind == "wearable" and appearance.person == self._seat[index]:
                elapsed_s = appearance.elapsed_s(at_s, self._speed)
                if elapsed_s is not None:
                    return drain(elapsed_s)
        return models.charge(kind, self._own_s(at_s), self._steady[index])

    def _silent(self, index: int, at_s: float) -> bool:
        kind = self.devices[index].kind
        return any(
            kind in appearance.scenario.silent_kinds
            and appearance.person == self._seat[index]
            and appearance.elapsed_s(at_s, self._speed) is not None
            for appearance in self._appearances
        )

    def _own_s(self, wall_s: float) -> float:
        """Return what the people's own clock shows."""
        return self._start_s + self._shift_s + (wall_s - self._start_s) * self._speed


def _person(resident: Resident) -> Person:
    return Person(resident.name, resident.sex, resident.born, resident.care_level)


def _day_times(hours: tuple[float, ...], from_s: float, for_s: float) -> Iterator[float]:
    """Yield the times at which a local clock shows one of `hours`, in order."""
    midnight_s = (from_s + 8 * HOUR_S) // DAY_S * DAY_S - 8 * HOUR_S
    while midnight_s < from_s + for_s:
        for hour in hours:
            at_s = midnight_s + hour * HOUR_S
            if from_s <= at_s < from_s + for_s:
                yield at_s
        midnight_s += DAY_S


def _hour(own_s: float) -> float:
    return (own_s + 8 * HOUR_S) % DAY_S / HOUR_S
