"""The state of a resident, judged from stored signs; pure. Silence is never taken for wellness."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from anxin.alarms import PRIORITY_NUMBER
from anxin.db.residents import Signs
from anxin.db.silence import Monitoring
from api.alarm_view import View

SILENCE: Final = timedelta(minutes=15)
"""A resident nothing was heard of for so long is in an unknown state."""

HIGH: Final = PRIORITY_NUMBER["high"]
MEDIUM: Final = PRIORITY_NUMBER["medium"]
GRAVE: Final = frozenset({"emergency", "physiological", "safety"})
LOCATING: Final = frozenset({"lat", "lon"})

State = Literal["well", "attention", "emergency", "unknown"]


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest value of one metric, and when it was measured."""

    value: float | str | bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Status:
    """How a resident is, as far as the platform knows.

    `since` is when this state began, `heard_at` when a device was last heard; `open_alarms` counts
    alarms that are not closed; `monitoring` is how the devices are being heard.
    """

    state: State
    since: datetime | None
    heard_at: datetime | None
    latest: dict[str, Latest]
    presence: Literal["present", "absent", "unknown"] | None
    open_alarms: int
    monitored: bool
    monitoring: Monitoring


def judge(signs: Signs) -> Status:
    """Return the status: emergency before attention, attention before unknown, then well."""
    assigned = [device[0] for device in signs.devices]
    heard = [at for since, at, *_ in signs.devices if at is not None and at >= since]
    last_s = max(heard, default=None)
    silent = last_s is None or signs.at.timestamp() - last_s > SILENCE.total_seconds()
    latest = _newest(signs.devices)
    presence = latest.pop("presence", None)
    grave = [a for a in signs.alarms if a[0] == HIGH and a[1] in GRAVE and a[2] == "present"]
    serious = [alarm for alarm in signs.alarms if alarm[0] >= MEDIUM]
    state: State
    since_s: float | None
    if grave:
        state, since_s = "emergency", min(alarm[3] for alarm in grave)
    elif serious:
        state, since_s = "attention", min(alarm[3] for alarm in serious)
    elif silent:
        state, since_s = "unknown", last_s if last_s is not None else min(assigned, default=None)
    else:
        closed = [signs.last_closed.timestamp()] if signs.last_closed else []
        state, since_s = "well", max([min(assigned), *closed])
    return Status(
        state=state,
        since=None if since_s is None else datetime.fromtimestamp(since_s, UTC),
        heard_at=None if last_s is None else datetime.fromtimestamp(last_s, UTC),
        latest=latest,
        presence=_presence(presence, silent=silent),
        open_alarms=len(signs.alarms),
        monitored=bool(signs.devices),
        monitoring=_monitoring(signs.devices),
    )


def seen_status(status: Status, view: View) -> dict[str, Any]:
    """Return the status for such a viewer: values and places only by consent."""
    latest = status.latest if view.sees_values else {}
    if not view.sees_location:
        latest = {name: value for name, value in latest.items() if name not in LOCATING}
    return {
        "state": status.state,
        "since": status.since,
        "heard_at": status.heard_at,
        "latest": latest,
        "presence": status.presence if view.sees_values else None,
        "open_alarms": status.open_alarms,
        "monitored": status.monitored,
        "monitoring": _shown(status.monitoring, view),
    }


def _monitoring(devices: list[list[Any]]) -> Monitoring:
    """Return how somebody is monitored: a device that tells of presence has the first word."""
    telling = {state for _, _, metrics, state in devices if "presence" in (metrics or {})}
    every = {state for _, _, _, state in devices}
    ranked: tuple[tuple[Monitoring, set[str]], ...] = (
        ("present", telling),
        ("absent", telling),
        ("present", every),
        ("network-error", every),
        ("sensor-error", every),
    )
    return next((state for state, states in ranked if state in states), "undeployed")


def _shown(monitoring: Monitoring, view: View) -> Monitoring:
    """Return it for such a viewer: whether somebody is in bed is a value."""
    return "present" if monitoring == "absent" and not view.sees_values else monitoring


def _newest(devices: list[list[Any]]) -> dict[str, Latest]:
    """Return the newest value of each metric, of those measured since the device is assigned."""
    newest: dict[str, tuple[Any, int]] = {}
    for since, _, metrics, _ in devices:
        for name, (value, at_ms) in (metrics or {}).items():
            if at_ms >= since * 1000 and (name not in newest or newest[name][1] < at_ms):
                newest[name] = (value, at_ms)
    return {
        name: Latest(value, datetime.fromtimestamp(at_ms / 1000, UTC))
        for name, (value, at_ms) in newest.items()
    }


def _presence(
    latest: Latest | None, *, silent: bool
) -> Literal["present", "absent", "unknown"] | None:
    if latest is None:
        return None
    if silent or latest.value not in ("present", "absent"):
        return "unknown"
    return "present" if latest.value == "present" else "absent"
