"""Places, residents and devices, created over the HTTP API, and the file that keeps the secrets.

A plan says what should exist; `provision` creates what does not, so that running it again, or after
half of it failed, or against an emptied database, ends in the same state. `attribute` gives
readings of the past to their residents, but only once they are stored: a device assigned since
long ago and never heard from would count as silent.
"""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

import httpx
import msgspec
from msgspec import structs

from anxin.errors import AnxinError, SettingError
from anxin.logs import log

_log = log(__name__)

AT_ONCE: Final = 8
"""Requests in flight; more does not make one API process faster."""
PAGE: Final = 100
PATIENCE_S: Final = 30.0
"""How long an API that is still starting, or out of breath, is tried again."""

T = TypeVar("T")
Sex = Literal["female", "male", "unknown"]
Json = dict[str, object]


class ApiRefused(AnxinError):
    """The API refused a request. Read its answer, correct the cause and run this again."""


class Resident(msgspec.Struct, frozen=True, omit_defaults=True):
    """A resident as the devices file knows it."""

    id: str
    name: str
    born: date | None = None
    sex: Sex = "unknown"
    care_level: int | None = None


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device with its secret; `resident` is None where it watches a place.

    `since` and `until` bound the time for which its readings belong to the resident, where that is
    not simply from the assignment on.
    """

    id: str
    secret: str
    kind: str
    resident: Resident | None = None
    since: datetime | None = None
    until: datetime | None = None

    def lacks(self, planned: "PlannedDevice") -> bool:
        """Return whether the plan wants readings attributed that this leaves out."""
        earlier = planned.since is not None and (self.since is None or planned.since < self.since)
        later = self.until is not None and (planned.until is None or planned.until > self.until)
        return earlier or later


class Roster(msgspec.Struct, frozen=True, omit_defaults=True):
    """The devices file: every simulated device, and where to connect it.

    `{"devices":[{"id","secret","kind","resident":{"id","name","born","sex","care_level"}}],
    "mqtt":"127.0.0.1:1883"}`. A device may lack `resident`; a resident all but `id` and `name`.
    """

    devices: tuple[Device, ...] = ()
    mqtt: str = ""


class PlannedPlace(msgspec.Struct, frozen=True):
    """A place that should exist; `parent` is the key of another one."""

    key: str
    parent: str | None
    kind: str
    name: str


class PlannedResident(msgspec.Struct, frozen=True):
    """A resident who should exist, at the place of this key."""

    key: str
    place: str
    name: str
    born: date | None = None
    sex: Sex = "unknown"
    care_level: int | None = None


class PlannedDevice(msgspec.Struct, frozen=True):
    """A device that should exist at a place and, with `resident`, belong to a resident.

    `since` is when its stored readings begin, None when there are none; `until` when they end, for
    a device which only recorded and from which nobody waits to hear.
    """

    id: str
    kind: str
    place: str
    resident: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Plan(msgspec.Struct, frozen=True):
    """What should exist. Parents stand before their children."""

    places: tuple[PlannedPlace, ...]
    residents: tuple[PlannedResident, ...]
    devices: tuple[PlannedDevice, ...]


async def provision(
    api: "Api", plan: Plan, known: Roster, keep: Callable[[Roster], None]
) -> Roster:
    """Create what is missing of the plan; return the planned devices, then the others known.

    `known` holds secrets from earlier runs. `keep` gets the roster at the end even when a request
    failed, so that no secret which was shown once is lost.
    """
    place_ids = await _places(api, plan.places)
    residents = await _residents(api, plan.residents, place_ids)
    existing = {str(item["id"]): item for item in await api.items("/devices")}
    ready = {device.id: device for device in known.devices}

    async def one(planned: PlannedDevice) -> None:
        before = ready.get(planned.id)
        item = existing.get(planned.id)
        resident = residents[planned.resident] if planned.resident is not None else None
        if item is None:
            body = {"id": planned.id, "kind": planned.kind, "place_id": place_ids[planned.place]}
            secret = str((await api.post("/devices", body))["secret"])
        elif before is None:
            secret = str((await api.post(f"/devices/{planned.id}/secret", {}))["secret"])
        else:
            secret = before.secret
        device = Device(planned.id, secret, planned.kind, resident)
        if item is not None and before is not None:
            device = structs.replace(device, since=before.since, until=before.until)
        ready[planned.id] = device
        holder = item.get("resident_id") if item is not None else None
        if resident is not None and planned.until is None and holder != resident.id:
            await api.put(f"/devices/{planned.id}/assignment", {"resident_id": resident.id})
            ready[planned.id] = structs.replace(device, since=None, until=None)

    try:
        await _each(one, plan.devices)
    finally:
        planned_ids: dict[str, object] = dict.fromkeys(d.id for d in plan.devices)
        order = [id_ for id_ in planned_ids | ready if id_ in ready]
        roster = Roster(tuple(ready[id_] for id_ in order), known.mqtt)
        keep(roster)
    new = sum(id_ not in existing for id_ in planned_ids)
    _log.info("provisioned", devices=len(planned_ids), new=new)
    return roster


async def attribute(api: "Api", plan: Plan, known: Roster, keep: Callable[[Roster], None]) -> None:
    """Give the stored readings of planned devices with `since` to their residents.

    Does nothing where it is so already; `keep` gets the roster with what is known now.
    """
    holders = {str(item["id"]): item.get("resident_id") for item in await api.items("/devices")}
    ready = {device.id: device for device in known.devices}

    async def one(planned: PlannedDevice) -> None:
        device = ready.get(planned.id)
        if device is None or device.resident is None or planned.since is None:
            return
        held_now = holders.get(device.id) == device.resident.id
        held_then = device.until is not None
        if (held_now or held_then) and not device.lacks(planned):
            return
        path = f"/devices/{device.id}/assignment"
        since, until = planned.since.isoformat(), None if held_now else planned.until
        await api.put(path, {"resident_id": device.resident.id, "since": since})
        if until is not None:
            await api.put(path, {"resident_id": None, "since": until.isoformat()})
        ready[device.id] = structs.replace(device, since=planned.since, until=until)

    try:
        await _each(one, plan.devices)
    finally:
        keep(Roster(tuple(ready.values()), known.mqtt))


async def _places(api: "Api", planned: Sequence[PlannedPlace]) -> dict[str, str]:
    """Return the id of each planned place by key, creating level by level."""
    known = {
        (str(p["parent_id"]) if p.get("parent_id") else None, p.get("kind"), p.get("name")): str(
            p["id"]
        )
        for p in await api.items("/places")
    }
    ids: dict[str, str] = {}

    async def one(place: PlannedPlace) -> None:
        parent = ids[place.parent] if place.parent is not None else None
        found = known.get((parent, place.kind, place.name))
        if found is None:
            body = {"parent_id": parent, "kind": place.kind, "name": place.name}
            found = str((await api.post("/places", body))["id"])
        ids[place.key] = found

    waiting = list(planned)
    while waiting:
        level = [p for p in waiting if p.parent is None or p.parent in ids]
        if not level:
            raise ValueError(f"Place {waiting[0].key} has no parent in the plan.")
        await _each(one, level)
        waiting = [p for p in waiting if p.key not in ids]
    return ids


async def _residents(
    api: "Api", planned: Sequence[PlannedResident], place_ids: Mapping[str, str]
) -> dict[str, Resident]:
    """Return each planned resident by key; the same name at the same place is the same one."""
    known = {
        (item.get("name"), str(item.get("place_id"))): str(item["id"])
        for item in await api.items("/residents")
    }
    ready: dict[str, Resident] = {}

    async def one(person: PlannedResident) -> None:
        place_id = place_ids[person.place]
        found = known.get((person.name, place_id))
        if found is None:
            body: Json = {
                "name": person.name,
                "sex": person.sex,
                "born": person.born.isoformat() if person.born else None,
                "place_id": place_id,
                "care_level": person.care_level,
            }
            found = str((await api.post("/residents", body))["id"])
        ready[person.key] = Resident(found, person.name, person.born, person.sex, person.care_level)

    await _each(one, planned)
    return ready


async def _each(work: Callable[[T], Awaitable[None]], items: Sequence[T]) -> None:
    """Do `work` for every item, AT_ONCE at a time; the first failure ends all."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(min(AT_ONCE, len(items))):
                group.create_task(worker(), name=f"provision-{number}")
    except* AnxinError as several:
        raise several.exceptions[0] from None


class Api:
    """The platform's HTTP API as an administrator; an async context manager."""

    def __init__(self, address: str, *, user: str, password: str = "", token: str = "") -> None:
        """Take `address` such as http://127.0.0.1:8080, and a password or a ready token."""
        if not password and not token:
            raise SettingError(
                "Provisioning needs a login: set ANXIN_ADMIN_PASSWORD (or …_FILE) or "
                "ANXIN_API_TOKEN, or give a ready --devices file."
            )
        self._user, self._password, self._token = user, password, token
        self._http = httpx.AsyncClient(
            base_url=address.rstrip("/") + "/api/v1", timeout=30, trust_env=False
        )

    async def __aenter__(self) -> Self:
        """Log in."""
        try:
            if not self._token:
                login = {"username": self._user, "password": self._password}
                self._token = str((await self.post("/auth/login", login))["access_token"])
            self._http.headers["Authorization"] = f"Bearer {self._token}"
        except BaseException:
            await self._http.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def items(self, path: str) -> list[Json]:
        """Return the whole list at `path`, page after page."""
        found: list[Json] = []
        query: dict[str, str] = {"limit": str(PAGE)}
        while True:
            page = await self._ask("GET", path, query=query)
            items = page.get("items")
            if not isinstance(items, list):
                raise ApiRefused(f"GET {path} did not answer with a list. Is this an Anxin API?")
            found += items
            if not page.get("next"):
                return found
            query["after"] = str(page["next"])

    async def post(self, path: str, body: Mapping[str, object]) -> Json:
        """Create something; return the answer."""
        return await self._ask("POST", path, body)

    async def put(self, path: str, body: Mapping[str, object]) -> Json:
        """Set something; return the answer."""
        return await self._ask("PUT", path, body)

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Json:
        """Ask, again while the API is away or overloaded, until PATIENCE_S is over."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        pause_s = 0.1
        while True:
            try:
                answer = await self._http.request(method, path, json=body, params=query)
                trouble = f"{answer.status_code} {answer.text[:300]}"
                again = answer.status_code in (
                    HTTPStatus.TOO_MANY_REQUESTS,
                    HTTPStatus.BAD_GATEWAY,
                    HTTPStatus.SERVICE_UNAVAILABLE,
                )
                if answer.is_success:
                    return msgspec.json.decode(answer.content, type=Json) if answer.content else {}
            except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError) as error:
                trouble, again = str(error) or type(error).__name__, True
            if not again or asyncio.get_running_loop().time() > deadline:
                raise ApiRefused(f"{method} {path} at {self._http.base_url}: {trouble}")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)


def read_roster(path: Path) -> Roster:
    """Read a devices file; an absent one is an empty roster."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Roster)
    except FileNotFoundError:
        return Roster()
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingError(f"{path} is not a devices file: {error}.") from error


def write_roster(path: Path, roster: Roster) -> None:
    """Write a devices file that only its owner can read, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp makes the file with mode 0600.
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(roster), indent=1))
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
