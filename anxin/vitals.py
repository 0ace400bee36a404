"""The table of metrics: field, unit, accepted range, LOINC code.

Ranges are what a device may report, not what is healthy. The codes follow LOINC; `docs/metrics.md`
is generated from this table.
"""

from typing import Final, Literal

import msgspec
import numpy as np


class Metric(msgspec.Struct, frozen=True):
    """One numeric field of a telemetry object."""

    name: str
    unit: str
    low: float
    high: float
    loinc: str | None
    zh: str
    en: str


METRICS: Final = (
    Metric("hr", "/min", 0, 300, "8867-4", "心率", "heart rate"),
    Metric("rr", "/min", 0, 100, "9279-1", "呼吸", "breathing"),
    Metric("spo2", "%", 0, 100, "59408-5", "血氧", "oxygen saturation"),
    Metric("temp", "°C", 20, 45, "8310-5", "体温", "temperature"),
    Metric("sbp", "mmHg", 0, 350, "8480-6", "收缩压", "systolic pressure"),
    Metric("dbp", "mmHg", 0, 350, "8462-4", "舒张压", "diastolic pressure"),
    Metric("glucose", "mmol/L", 0, 60, "15074-8", "血糖", "glucose"),
    Metric("weight", "kg", 1, 400, "29463-7", "体重", "weight"),
    Metric("steps", "", 0, 200_000, "55423-8", "步数", "steps"),
    Metric("movement", "", 0, 1, None, "体动", "movement"),
    Metric("battery", "%", 0, 100, None, "电量", "battery"),
    Metric("rssi", "dBm", -150, 0, None, "信号", "signal"),
    Metric("lat", "°", -90, 90, None, "纬度", "latitude"),
    Metric("lon", "°", -180, 180, None, "经度", "longitude"),
    Metric("room_temp", "°C", -40, 60, None, "室温", "room temperature"),
    Metric("humidity", "%", 0, 100, None, "湿度", "humidity"),
)
NAMES: Final = tuple(metric.name for metric in METRICS)
COLUMN: Final = {name: column for column, name in enumerate(NAMES)}
LOW: Final = np.array([metric.low for metric in METRICS])
HIGH: Final = np.array([metric.high for metric in METRICS])

Presence = Literal["present", "absent", "unknown"]
Consciousness = Literal["A", "C", "V", "P", "U"]

# Coded values as they are stored; the order is part of the database, append only.
PRESENCE: Final[tuple[Presence, ...]] = ("unknown", "absent", "present")
CONSCIOUSNESS: Final[tuple[Consciousness, ...]] = ("A", "C", "V", "P", "U")
CODED: Final = ("presence", "consciousness", "oxygen")

MAX_EXTRA: Final = 32
"""At most so many other numeric fields are kept with one reading."""
