"""When a station can call nobody: its screen is silent, or nobody can see or hear it; pure."""

from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

Sound = Literal["on", "muted", "unknown"]
Fault = Literal["station_gone", "station_asleep", "station_muted"]

GONE_AFTER: Final = timedelta(seconds=30)
"""The page reports every 15 s: two reports in a row are missing."""
ASLEEP_AFTER: Final = timedelta(seconds=60)
UNPROVED_AFTER: Final = timedelta(minutes=3)
"""The page proves its sound every minute: three proofs in a row have failed."""
UNMANNED_AFTER: Final = timedelta(minutes=2)

SELF_TEST_EVERY: Final = timedelta(minutes=5)
SELF_TEST_BED: Final = "自检床"


class Station(msgspec.Struct, frozen=True, kw_only=True):
    """What a screen last said of itself, and where it stands in the tree of places."""

    id: int
    user_id: int
    username: str
    screen: str
    place_id: int | None
    path: str
    seen_at: datetime
    sound: Sound
    visible: bool
    visible_at: datetime
    proved_at: datetime | None
    on_duty: bool


def fault_of(station: Station, now: datetime) -> Fault | None:
    """Return why a station on duty cannot call anybody, the worst first; None when it can."""
    if not station.on_duty:
        return None
    if now - station.seen_at > GONE_AFTER:
        return "station_gone"
    if not station.visible and now - station.visible_at > ASLEEP_AFTER:
        return "station_asleep"
    proved = station.proved_at is not None and now - station.proved_at <= UNPROVED_AFTER
    if station.sound == "muted" or not proved:
        return "station_muted"
    return None


def self_test_device(place_id: int) -> str:
    """Return the id of the device that presses the button of a place's test bed."""
    return f"anxin-selftest-{place_id}"
