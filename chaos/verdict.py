"""Compares the publishers' book with the database; pure.

An acknowledged reading or event must be stored exactly once and as it was sent; what is stored
must have been sent; every resident who pressed for help has exactly one alarm, and it counts each
of the presses once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any

from chaos.ledger import METRICS, MISDATED, Book, values


@dataclass(slots=True)
class Stored:
    """What the database holds of the devices in the book."""

    readings: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Rows by (device, time stamp in microseconds)."""
    altered: list[tuple[str, int]] = field(default_factory=list)
    """Readings whose values are not those that were sent."""
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    alarms: list[tuple[str, int]] = field(default_factory=list)
    """Device (one per resident) and count of every `sos` alarm, closed ones included."""
    misdated: set[str] = field(default_factory=set)
    """Devices of which an event has a time stamp that the platform took for wrong."""
    quarantined: int = 0

    @property
    def silenced(self) -> int:
        """How many pressed in vain while the platform's own clock was wrong."""
        raised = {device for device, _ in self.alarms}
        wrongly = {device for device in self.misdated if not device.startswith(MISDATED)}
        return len(wrongly - raised)

    def add_reading(self, device: str, ts_us: int, row: Mapping[str, float | None]) -> None:
        """Take one row and compare its values with what the device sent at that time."""
        self.readings[device, ts_us] += 1
        expected = values(device, ts_us // 1000)
        if any(row[metric] != expected[metric] for metric in METRICS):
            self.altered.append((device, ts_us))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the verdict: what was looked for, among how many, and what was found."""

    claim: str
    among: int
    faults: tuple[str, ...]


def judge(book: Book, stored: Stored) -> list[Line]:
    """Return every comparison; the promise is kept when no line has a fault."""
    pressed: defaultdict[str, int] = defaultdict(int)
    for device, _ in book.events:
        pressed[device] += 1
    episodes: defaultdict[str, list[int]] = defaultdict(list)
    for device, count in stored.alarms:
        episodes[device].append(count)
    senders = {device for device, _ in stored.events}
    misdated = {device for device in senders if device.startswith(MISDATED)}
    heard = senders - stored.misdated - misdated
    return [
        line("the book holds every reading once", book.readings, _repeated(book.readings)),
        line("the book holds every event once", book.events, _repeated(book.events)),
        line(
            "an acknowledged reading is stored",
            book.readings_acknowledged,
            book.readings_acknowledged - stored.readings.keys(),
        ),
        line("a reading is stored once", stored.readings, _repeated(stored.readings)),
        line("a stored reading was sent", stored.readings, stored.readings.keys() - book.readings),
        line("values are those that were sent", stored.readings, stored.altered),
        line(
            "an acknowledged event is stored",
            book.events_acknowledged,
            book.events_acknowledged - stored.events.keys(),
        ),
        line("an event is stored once", stored.events, _repeated(stored.events)),
        line("a stored event was sent", stored.events, stored.events.keys() - book.events),
        line(
            "who pressed for help has one alarm",
            heard,
            [device for device in heard if len(episodes.get(device, ())) != 1],
        ),
        line(
            "an alarm counts every press once",
            stored.alarms,
            [
                f"{device}: pressed {pressed[device]}, counted {sum(counts)}"
                for device, counts in episodes.items()
                if device not in stored.misdated and sum(counts) != pressed[device]
            ],
        ),
        line(
            "a clock ten years off raises no live alarm",
            misdated,
            [device for device in misdated if device in episodes],
        ),
        line("nothing went to quarantine", book.readings, ["quarantined"] * stored.quarantined),
    ]


def _repeated(counted: Counter[Any]) -> list[object]:
    return [key for key, count in counted.items() if count > 1]


def line(claim: str, among: Sized, faults: Iterable[object]) -> Line:
    """Return a line of the verdict, its faults in the order of the alphabet."""
    return Line(claim, len(among), tuple(sorted(map(str, faults))))
