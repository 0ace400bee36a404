"""One person as HL7 FHIR R4 resources (https://hl7.org/fhir/R4/). Pure.

What is measured now and then is one Observation each. What is measured all the time is one
Observation an hour with SampledData: the mean of each minute, E where there was none. States
(presence, consciousness, oxygen) are told when they change.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from anxin.vitals import CODED, CONSCIOUSNESS, METRICS, PRESENCE

Resource = dict[str, Any]
LOINC: Final = "http://loinc.org"
UCUM: Final = "http://unitsofmeasure.org"
CATEGORIES: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
LOCAL: Final = "urn:anxin"
ID_CARD_SYSTEM: Final = "urn:oid:2.16.156.10011.1.3"
"""Resident identity cards of China, as the country's health record documents name them."""
PRESSURE: Final = "85354-9"
"""LOINC: blood pressure panel; systolic and diastolic are its components."""
MOST_SINGLE: Final = 12
"""More readings of one metric in an hour make one series."""

UNITS: Final = {
    "/min": "/min", "%": "%", "°C": "Cel", "mmHg": "mm[Hg]", "mmol/L": "mmol/L", "kg": "kg",
    "": "1",
}  # fmt: skip
"""UCUM code by the unit of `anxin.vitals`."""
OBSERVED: Final = {
    "hr": "vital-signs", "rr": "vital-signs", "spo2": "vital-signs", "temp": "vital-signs",
    "sbp": "vital-signs", "dbp": "vital-signs", "weight": "vital-signs",
    "glucose": "laboratory", "steps": "activity", "movement": "activity",
}  # fmt: skip
"""Which metrics are observations of the person, and of which category; others tell of devices."""
_BY_NAME: Final = {metric.name: metric for metric in METRICS}
_STATES: Final[Mapping[str, tuple[str, str, str | None]]] = {
    "presence": ("在床 / 在场", "presence", None),
    "consciousness": ("意识", "consciousness (ACVPU)", "67775-7"),
    # Whether oxygen is given has no code of its own in the table of metrics: that one is its share.
    "oxygen": ("吸氧", "on supplementary oxygen", None),
}
_NAMESPACE: Final = UUID("6d1e2c0a-6f5f-5e0b-9a55-0f7c1f6d8a11")
_SEVERITY: Final = {1: "low", 2: "medium", 3: "high"}


@dataclass(slots=True)
class Series:
    """Turns the rows of one device, in order of time, into Observations."""

    patient: str
    device: str
    device_id: str
    _hour: datetime | None = None
    _rows: list[Mapping[str, Any]] = field(default_factory=list)
    _state: dict[str, object] = field(default_factory=dict)

    def take(self, row: Mapping[str, Any]) -> Iterator[Resource]:
        """Take one reading; yield what an hour that is over gives."""
        hour = row["ts"].replace(minute=0, second=0, microsecond=0)
        if self._hour is not None and hour != self._hour:
            yield from self.rest()
        self._hour = hour
        self._rows.append(row)

    def rest(self) -> Iterator[Resource]:
        """Yield what the last hour gives."""
        rows, self._rows = self._rows, []
        if self._hour is None:
            return
        counts = {name: sum(row[name] is not None for row in rows) for name in OBSERVED}
        series = {name for name, count in counts.items() if count > MOST_SINGLE}
        for row in rows:
            yield from self._single(row, series)
            yield from self._changed(row)
        for name in sorted(series):
            yield self._sampled(name, self._hour, rows)

    def _single(self, row: Mapping[str, Any], series: set[str]) -> Iterator[Resource]:
        values = {
            name: row[name] for name in OBSERVED if row[name] is not None and name not in series
        }
        if "sbp" in values and "dbp" in values:
            yield self._observation(
                row, "bp", _concept(LOINC, PRESSURE, "血压 · blood pressure"), "vital-signs"
            ) | {
                "component": [
                    {"code": _code(name), "valueQuantity": _quantity(name, values.pop(name))}
                    for name in ("sbp", "dbp")
                ]
            }
        for name, value in values.items():
            yield self._observation(row, name, _code(name), OBSERVED[name]) | {
                "valueQuantity": _quantity(name, value)
            }

    def _changed(self, row: Mapping[str, Any]) -> Iterator[Resource]:
        for name in CODED:
            value = row[name]
            if value is None or self._state.get(name) == value:
                continue
            self._state[name] = value
            zh, en, loinc = _STATES[name]
            code = _concept(LOCAL, name, f"{zh} · {en}", loinc)
            one = self._observation(row, name, code, "survey")
            if name == "oxygen":
                yield one | {"valueBoolean": value}
            else:
                word = (PRESENCE if name == "presence" else CONSCIOUSNESS)[value]
                yield one | {"valueCodeableConcept": _concept(f"{LOCAL}:{name}", word, word)}

    def _sampled(self, name: str, hour: datetime, rows: Sequence[Mapping[str, Any]]) -> Resource:
        minutes: defaultdict[int, list[float]] = defaultdict(list)
        for row in rows:
            if row[name] is not None:
                minutes[row["ts"].minute].append(row[name])
        data = " ".join(
            f"{sum(minutes[minute]) / len(minutes[minute]):.4g}" if minute in minutes else "E"
            for minute in range(60)
        )
        return {
            "resourceType": "Observation",
            "id": _id("series", self.device_id, name, hour),
            "status": "final",
            "category": [_category(OBSERVED[name])],
            "code": _code(name),
            "subject": {"reference": self.patient},
            "effectivePeriod": _period(hour, hour + timedelta(hours=1)),
            "method": {"text": "mean of each minute"},
            "device": {"reference": self.device},
            "valueSampledData": {
                "origin": _quantity(name, 0),
                "period": 60000,
                "dimensions": 1,
                "data": data,
            },
        }

    def _observation(
        self, row: Mapping[str, Any], name: str, code: Resource, category: str
    ) -> Resource:
        return {
            "resourceType": "Observation",
            "id": _id("reading", self.device_id, name, row["ts"]),
            "status": "final",
            "category": [_category(category)],
            "code": code,
            "subject": {"reference": self.patient},
            "effectiveDateTime": instant(row["ts"]),
            "issued": instant(row["received_at"]),
            "device": {"reference": self.device},
        }


def patient(
    who: Mapping[str, Any],
    *,
    id_card: str | None,
    phone: str | None,
    relatives: Iterable[tuple[str, str, str | None]],
) -> Resource:
    """Return the Patient; `relatives` are name, relation and number."""
    identifiers = [{"system": f"{LOCAL}:resident", "value": who["id"]}]
    if id_card:
        identifiers.append({"system": ID_CARD_SYSTEM, "value": id_card})
    found: Resource = {
        "resourceType": "Patient",
        "id": _id("patient", who["id"]),
        "identifier": identifiers,
        "name": [{"text": who["name"]}],
        "gender": who["sex"],
    }
    if phone:
        found["telecom"] = [{"system": "phone", "value": phone}]
    if who["born"]:
        found["birthDate"] = who["born"].isoformat()
    if who["places"]:
        found["address"] = [{"text": " · ".join(who["places"])}]
    contacts = [
        {
            "relationship": [{"text": relation}],
            "name": {"text": name},
            **({"telecom": [{"system": "phone", "value": number}]} if number else {}),
        }
        for name, relation, number in relatives
    ]
    return found | ({"contact": contacts} if contacts else {})


def device(one: Mapping[str, Any], patient_url: str) -> Resource:
    """Return a Device that the person has or had."""
    found: Resource = {
        "resourceType": "Device",
        "id": _id("device", one["device_id"]),
        "identifier": [{"system": f"{LOCAL}:device", "value": one["device_id"]}],
        "type": _concept(f"{LOCAL}:device-kind", one["kind"], one["kind"]),
        "patient": {"reference": patient_url},
    }
    if one["name"]:
        found["deviceName"] = [{"name": one["name"], "type": "user-friendly-name"}]
    return found


def flag(alarm: Mapping[str, Any], patient_url: str, words: tuple[str, str]) -> Resource:
    """Return the Flag of an alarm: active until it is closed; `words` name its kind."""
    closed = alarm["closed_at"]
    return {
        "resourceType": "Flag",
        "id": _id("alarm", alarm["id"]),
        "identifier": [{"system": f"{LOCAL}:alarm", "value": alarm["id"]}],
        "status": "inactive" if closed else "active",
        "category": [
            _concept(
                "http://terminology.hl7.org/CodeSystem/flag-category",
                "clinical" if alarm["class"] == "physiological" else "safety",
                alarm["class"],
            ),
            _concept(f"{LOCAL}:priority", _SEVERITY[alarm["priority"]], None),
        ],
        "code": _concept(f"{LOCAL}:alarm-kind", alarm["kind"], " · ".join(words)),
        "subject": {"reference": patient_url},
        "period": _period(alarm["event_at"], max(closed, alarm["event_at"]) if closed else None),
    }


def consent(one: Mapping[str, Any], patient_url: str) -> Resource:
    """Return a Consent: to whom what is permitted, by whom, until when."""
    giver: Resource = {"reference": patient_url} if one["given_by"] == "elder" else {
        "display": one["relation"] or "unstated"
    }  # fmt: skip
    provision: Resource = {
        "type": "permit",
        "period": _period(one["given_at"], one["withdrawn_at"] or one["until_at"]),
        "purpose": [{"system": f"{LOCAL}:purpose", "code": one["purpose"]}],
        "code": [_concept(f"{LOCAL}:scope", scope, None) for scope in one["scopes"]],
    }
    if one["username"]:
        provision["actor"] = [
            {"role": {"text": "relative"}, "reference": {"display": one["username"]}}
        ]
    return {
        "resourceType": "Consent",
        "id": _id("consent", one["id"]),
        "status": "active" if one["in_force"] else "inactive",
        "scope": _concept(
            "http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy", None
        ),
        "category": [_concept(LOINC, "59284-0", "Consent Document")],
        "patient": {"reference": patient_url},
        "dateTime": instant(one["given_at"]),
        "performer": [giver],
        "policyRule": {"text": "Only what is named here is permitted."},
        "provision": provision,
    }


def url(resource: Mapping[str, Any]) -> str:
    """Return how other resources of the same bundle refer to this one."""
    return f"urn:uuid:{resource['id']}"


def instant(moment: datetime) -> str:
    """Return a time as FHIR writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _id(*parts: object) -> str:
    """Return the same id for the same thing in every export."""
    return str(uuid5(_NAMESPACE, "/".join(str(part) for part in parts)))


def _period(start: datetime, end: datetime | None) -> Resource:
    return {"start": instant(start)} | ({"end": instant(end)} if end else {})


def _category(code: str) -> Resource:
    return {"coding": [{"system": CATEGORIES, "code": code}]}


def _concept(system: str, code: str, text: str | None, loinc: str | None = None) -> Resource:
    coding = [{"system": LOINC, "code": loinc}] if loinc else []
    concept: Resource = {"coding": [*coding, {"system": system, "code": code}]}
    return concept | ({"text": text} if text else {})


def _code(name: str) -> Resource:
    metric = _BY_NAME[name]
    return _concept(LOCAL, name, f"{metric.zh} · {metric.en}", metric.loinc)


def _quantity(name: str, value: float) -> Resource:
    unit = _BY_NAME[name].unit
    # As many digits as were sent: storage is single precision.
    return {
        "value": float(f"{value:.7g}"), "unit": unit or "1", "system": UCUM, "code": UNITS[unit],
    }  # fmt: skip
