"""What FHIR R4 asks of the resources that an export is made of, written down element by element.

Cardinalities, types, required value sets and invariants of https://hl7.org/fhir/R4/ for Bundle,
Patient, Device, Observation, Flag and Consent, as far as their elements are used. An element that
is not named here is a fault.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

Check = Callable[[Any, str], None]
UCUM_CODES = {"/min", "%", "Cel", "mm[Hg]", "mmol/L", "kg", "1"}


class Fault(AssertionError):
    """Something that FHIR does not allow, and where."""


def need(holds: object, where: str, why: str) -> None:
    """Raise a Fault unless it holds."""
    if not holds:
        raise Fault(f"{where}: {why}")


def matches(pattern: str) -> Check:
    """Return a check that a value is a text of this form."""

    def check(value: Any, where: str) -> None:
        need(isinstance(value, str) and re.fullmatch(pattern, value), where, f"not {pattern}")

    return check


def one_of(*codes: str) -> Check:
    """Return a check that a value is one of a required value set."""

    def check(value: Any, where: str) -> None:
        need(value in codes, where, f"{value!r} is not one of {codes}")

    return check


def number(value: Any, where: str) -> None:
    """Check a decimal."""
    need(isinstance(value, int | float) and not isinstance(value, bool), where, "not a number")


def boolean(value: Any, where: str) -> None:
    """Check a boolean."""
    need(isinstance(value, bool), where, "not a boolean")


def day(value: Any, where: str) -> None:
    """Check a date."""
    matches(r"\d{4}-\d\d-\d\d")(value, where)
    date.fromisoformat(value)


def moment(value: Any, where: str) -> None:
    """Check a dateTime or instant that has a time: with seconds and an offset."""
    matches(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")(value, where)
    datetime.fromisoformat(value)


text = matches(r"[\s\S]*\S[\s\S]*")
uri = matches(r"(https?://|urn:)\S+")
code = matches(r"\S+( \S+)*")
uuid = matches(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
reference = matches(r"urn:uuid:[0-9a-f-]{36}")


class Many:
    """A list of at least one element."""

    def __init__(self, check: Check) -> None:
        """Check each with this."""
        self._check = check

    def __call__(self, value: Any, where: str) -> None:
        """Check all."""
        need(isinstance(value, list) and value, where, "an array has at least one element")
        for place, each in enumerate(value):
            self._check(each, f"{where}[{place}]")


class Object:
    """An object: `must` and `may` name its elements; `rule` looks at the whole."""

    def __init__(
        self,
        must: Mapping[str, Check] | None = None,
        may: Mapping[str, Check] | None = None,
        rule: Callable[[dict[str, Any]], object] = lambda _: True,
        why: str = "",
    ) -> None:
        """Describe it."""
        self._must, self._may, self._rule, self._why = must or {}, may or {}, rule, why

    def __call__(self, value: Any, where: str) -> None:
        """Check it and what is in it."""
        need(isinstance(value, dict) and value, where, "an object is never empty")
        for name in self._must.keys() - value.keys():
            raise Fault(f"{where}: {name} is missing")
        for name, inner in value.items():
            check = self._must.get(name) or self._may.get(name)
            if check is None:
                raise Fault(f"{where}: there is no element {name}")
            check(inner, f"{where}.{name}")
        need(self._rule(value), where, self._why)


coding = Object({"system": uri, "code": code}, {"display": text})
concept = Object({}, {"coding": Many(coding), "text": text})
identifier = Object({"system": uri, "value": text})
period = Object(
    {},
    {"start": moment, "end": moment},
    lambda one: "end" not in one or one["start"] <= one["end"],
    "per-1: it ends before it begins",
)
quantity = Object({"value": number, "unit": text, "system": uri, "code": one_of(*UCUM_CODES)})
refers = Object({}, {"reference": reference, "display": text})
telecom = Object({"system": one_of("phone"), "value": matches(r"\+\d{7,15}")})
sampled = Object(
    {
        "origin": quantity,
        "period": number,
        "dimensions": lambda value, where: need(value == 1, where, "one dimension"),
        "data": matches(r"(-?\d+(\.\d+)?(e[+-]?\d+)?|[EUL])( (-?\d+(\.\d+)?(e[+-]?\d+)?|[EUL]))*"),
    }
)
component = Object({"code": concept, "valueQuantity": quantity})


def _values(one: dict[str, Any]) -> int:
    return sum(name.startswith("value") for name in one) + ("component" in one)


RESOURCES: dict[str, Object] = {
    "Patient": Object(
        {"identifier": Many(identifier), "name": Many(Object({"text": text})),
         "gender": one_of("male", "female", "other", "unknown")},
        {"telecom": Many(telecom), "birthDate": day, "address": Many(Object({"text": text})),
         "contact": Many(Object(
             {"relationship": Many(concept), "name": Object({"text": text})},
             {"telecom": Many(telecom)}))},
    ),
    "Device": Object(
        {"identifier": Many(identifier), "type": concept, "patient": refers},
        {"deviceName": Many(Object(
            {"name": text, "type": one_of("udi-label-name", "user-friendly-name",
                                          "patient-reported-name", "manufacturer-name",
                                          "model-name", "other")}))},
    ),
    "Observation": Object(
        {"status": one_of("registered", "preliminary", "final", "amended"), "code": concept,
         "category": Many(concept), "subject": refers, "device": refers},
        {"effectiveDateTime": moment, "effectivePeriod": period, "issued": moment,
         "valueQuantity": quantity, "valueBoolean": boolean, "valueCodeableConcept": concept,
         "valueSampledData": sampled, "method": concept, "component": Many(component)},
        lambda one: ("effectiveDateTime" in one) + ("effectivePeriod" in one) == 1
        and _values(one) == 1,
        "one effective[x], and one value[x] or components (obs-7)",
    ),
    "Flag": Object(
        {"identifier": Many(identifier), "status": one_of("active", "inactive"), "code": concept,
         "subject": refers, "category": Many(concept), "period": period},
    ),
    "Consent": Object(
        {"status": one_of("draft", "proposed", "active", "rejected", "inactive"),
         "scope": concept, "category": Many(concept), "patient": refers, "dateTime": moment,
         "performer": Many(refers), "policyRule": concept,  # ppc-1: a policy or a policyRule
         "provision": Object(
             {"type": one_of("deny", "permit"), "period": period},
             {"actor": Many(Object({"role": concept, "reference": refers})),
              "purpose": Many(coding), "code": Many(concept)})},
    ),
}  # fmt: skip
_EVERY: dict[str, Check] = {"id": uuid, "resourceType": one_of(*RESOURCES)}
VITAL_SIGNS = {"8867-4", "9279-1", "59408-5", "8310-5", "8480-6", "8462-4", "85354-9", "29463-7"}


def check_bundle(bundle: Any) -> list[dict[str, Any]]:
    """Check a whole collection and return its resources; raise Fault."""
    need(set(bundle) == {"resourceType", "type", "timestamp", "entry"}, "Bundle", "other elements")
    need(bundle["resourceType"] == "Bundle" and bundle["type"] == "collection", "Bundle", "type")
    moment(bundle["timestamp"], "Bundle.timestamp")
    resources = {}
    for place, entry in enumerate(bundle["entry"]):
        where = f"entry[{place}]"
        need(set(entry) == {"fullUrl", "resource"}, where, "other elements")
        resource = entry["resource"]
        need(entry["fullUrl"] == f"urn:uuid:{resource.get('id')}", where, "bdl-8: fullUrl and id")
        need(entry["fullUrl"] not in resources, where, "bdl-7: the same resource twice")
        check_resource(resource, where)
        resources[entry["fullUrl"]] = resource
    for one in resources.values():
        for target, kind in _references(one):
            need(target in resources, one["id"], f"{target} is not in the bundle")
            need(resources[target]["resourceType"] in kind, target, f"is not a {kind}")
    return list(resources.values())


def check_resource(resource: Any, where: str) -> None:
    """Check one resource; raise Fault."""
    kind = resource.get("resourceType")
    need(kind in RESOURCES, where, f"{kind} is not one of ours")
    where = f"{where} {kind}"
    for name, check in _EVERY.items():
        check(resource.get(name), f"{where}.{name}")
    RESOURCES[kind]({name: v for name, v in resource.items() if name not in _EVERY}, where)
    if kind == "Observation":
        codes = {one["code"] for one in resource["code"]["coding"]}
        categories = {one["code"] for cat in resource["category"] for one in cat["coding"]}
        if codes & VITAL_SIGNS:
            need("vital-signs" in categories, where, "a vital sign says so (VSCat)")
        if "85354-9" in codes:
            parts = {c["coding"][0]["code"] for c in (p["code"] for p in resource["component"])}
            need(parts == {"8480-6", "8462-4"}, where, "pressure has both its parts")


def _references(one: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    kinds = {
        "subject": ("Patient",), "patient": ("Patient",), "device": ("Device",),
        "performer": ("Patient",),
    }  # fmt: skip
    return [
        (target["reference"], kind)
        for name, kind in kinds.items()
        for target in (one[name] if isinstance(one.get(name), list) else [one.get(name, {})])
        if "reference" in target
    ]
