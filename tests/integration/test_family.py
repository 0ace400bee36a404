"""What a relative is told beside state and values, and what stays hidden."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from anxin.db.pool import Database
from anxin.db.scope import Scope
from anxin.db.sessions import hash_token
from anxin.db.usual import Usual, usual
from anxin.errors import NotFound
from tests.integration.api_world import Api, World, running, settle

ZONE = ZoneInfo("Asia/Shanghai")
YESTERDAY = datetime.now(ZONE).date() - timedelta(days=1)
NINE_IN_THE_EVENING = datetime.combine(YESTERDAY, time(21, 20), ZONE)
EIGHT_IN_THE_MORNING = datetime.combine(YESTERDAY, time(8), ZONE)


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    world = settle(dsn)
    world.user("aunt", "family")
    world.link("aunt", "anna", "alarms")
    async with running(world) as serving:
        yield serving


async def usual_of(world: World, now: datetime, *, who: str = "nurse") -> Usual:
    """Return today of Anna beside what is usual, as this user is told it."""
    anna = int(world.ids["anna"])
    scope = Scope(world.one("SELECT path FROM places WHERE id = %s", int(world.ids["A"])))
    if who == "family":
        scope = Scope(None, (anna,))
    async with Database(world.dsn, role="anxin_api") as database:
        bound = database.on_behalf_of(hash_token(world.tokens[who]))
        return await usual(bound, scope, anna, now=now, zone=ZONE)


def measure(world: World, device: int, metric: str, values: dict[datetime, float]) -> None:
    """Store one reading for each moment, due to be rolled up."""
    for at, value in values.items():
        world.ask(
            f"INSERT INTO telemetry (ts, received_at, device_key, {metric})"
            f" VALUES (%s, now(), %s, %s)"
            f" ON CONFLICT (device_key, ts) DO UPDATE SET {metric} = excluded.{metric}",
            at,
            device,
            value,
        )
        world.ask(
            "INSERT INTO rollup_due (device_key, minute) VALUES (%s, date_trunc('minute', %s))",
            device,
            at,
        )
    world.ask(
        "INSERT INTO latest (device_key, ts, received_at, metrics) VALUES (%s, now(), now(),"
        " jsonb_build_object(%s::text, jsonb_build_array(1, 1)))"
        " ON CONFLICT (device_key) DO UPDATE SET metrics = latest.metrics || excluded.metrics",
        device,
        metric,
    )


def as_request(world: World, who: str, query: str, *parameters: object) -> list[dict[str, Any]]:
    """Return what a query gives to a request of this user."""
    with world.sql(autocommit=False) as connection:
        token = hash_token(world.tokens[who]).hex()
        connection.execute(b"SET LOCAL ROLE anxin_api")
        connection.execute(b"SELECT set_config('anxin.session', %s, true)", [token])
        return connection.execute(query.encode(), parameters).fetchall()


def at(days_back: int, hour: int) -> datetime:
    """Return half past an hour of a day, local time."""
    day = YESTERDAY - timedelta(days=days_back)
    return datetime.combine(day, time(hour, 30 if hour < 21 else 10), ZONE)


async def test_today_stands_beside_the_same_hours_of_earlier_days(dsn: str) -> None:
    world = settle(dsn)
    mat = world.device("mat", "A", "anna", since_days=40)
    hr = {at(back, hour): 60.0 + back for back in range(1, 11) for hour in (3, 20)}
    # What comes later in the day is no measure for now.
    hr |= {datetime.combine(YESTERDAY - timedelta(days=back), time(23, 30), ZONE): 150.0
           for back in range(1, 11)}  # fmt: skip
    hr |= {at(0, 3): 79.0, at(0, 20): 81.0}
    measure(world, mat, "hr", hr)
    steps = {at(back, hour): 100.0 * hour for back in range(1, 11) for hour in (8, 20)}
    measure(world, mat, "steps", steps | {at(0, 20): 1234.0})
    few = {at(back, 8): 36.5 for back in range(1, 4)}
    measure(world, mat, "temp", few)

    told = (await usual_of(world, NINE_IN_THE_EVENING)).metrics

    assert told["hr"].today == pytest.approx(80)
    assert told["hr"].days == 10
    assert told["hr"].usual is not None
    assert told["hr"].usual.median == pytest.approx(65.5)
    assert told["hr"].usual.low == pytest.approx(61.9)
    assert told["hr"].usual.high == pytest.approx(69.1)
    assert [one.hour for one in told["hr"].hours] == [3, 20, 23]
    assert told["steps"].today == 1234
    assert told["steps"].usual is not None
    assert told["steps"].usual.median == 2000
    # Of three days nothing is said to be usual, and of what was not measured nothing at all.
    assert told["temp"].today is None
    assert told["temp"].usual is None
    assert told["temp"].days == 3
    assert "spo2" not in told


def sleep(world: World, device: int, days_back: int) -> None:
    """Let the mat tell every minute of a night: in bed 22:05 to 06:40, up from 02:00 to 02:06."""
    noon = datetime.combine(YESTERDAY - timedelta(days=days_back), time(12), ZONE)
    world.ask(
        "INSERT INTO telemetry (ts, received_at, device_key, presence)"
        " SELECT m, now(), %(device)s, CASE"
        " WHEN local >= '22:05' OR local < '02:00' THEN 2 WHEN local < '02:06' THEN 1"
        " WHEN local < '06:40' THEN 2 ELSE 1 END"
        " FROM (SELECT m, (m AT TIME ZONE 'Asia/Shanghai')::time AS local FROM generate_series("
        "   %(noon)s::timestamptz - interval '18 hours', %(noon)s::timestamptz, interval '1 minute'"
        " ) AS m) AS x ON CONFLICT DO NOTHING".replace("%(device)s", str(device)).replace(
            "%(noon)s", f"'{noon.isoformat()}'"
        )
    )


async def test_nights_are_told_as_the_bed_saw_them_and_what_is_usual_from_seven_on(
    dsn: str,
) -> None:
    world = settle(dsn)
    mat = world.device("mat", "A", "anna", since_days=40)
    measure(world, mat, "hr", {at(0, 13): 70.0})
    for back in range(7):
        sleep(world, mat, back)

    nights = (await usual_of(world, NINE_IN_THE_EVENING)).nights
    assert nights.last is not None
    assert nights.last.date == YESTERDAY
    assert nights.last.in_bed_at == datetime.combine(
        YESTERDAY - timedelta(days=1), time(22, 5), ZONE
    )
    assert nights.last.up_at == datetime.combine(YESTERDAY, time(6, 40), ZONE)
    assert nights.last.minutes_in_bed == 8 * 60 + 35 - 6
    assert nights.last.exits == 1
    assert nights.usual is None

    sleep(world, mat, 7)
    usually = (await usual_of(world, NINE_IN_THE_EVENING)).nights.usual
    assert usually is not None
    assert (usually.nights, usually.exits) == (7, 1)
    assert (usually.in_bed_minute, usually.up_minute) == (22 * 60 + 5, 6 * 60 + 40)


async def test_who_is_still_in_bed_has_not_got_up_and_an_unseen_night_is_none(dsn: str) -> None:
    world = settle(dsn)
    mat = world.device("mat", "A", "anna", since_days=40)
    measure(world, mat, "hr", {at(0, 13): 70.0})
    sleep(world, mat, 0)
    early = datetime.combine(YESTERDAY, time(5), ZONE)
    night = (await usual_of(world, early)).nights.last
    assert night is not None
    assert night.up_at is None
    world.ask("DELETE FROM telemetry WHERE ts < %s", datetime.combine(YESTERDAY, time(4), ZONE))
    assert (await usual_of(world, EIGHT_IN_THE_MORNING)).nights.last is None


async def test_what_is_usual_is_hidden_from_who_may_not_see_values(api: Api) -> None:
    world = api.world
    anna = world.ids["anna"]
    assert (await api["family"].get(f"/residents/{anna}/usual")).json()["metrics"] == {}
    assert (await api["aunt"].get(f"/residents/{anna}/usual")).status_code == 404
    assert (await api["nurse-b"].get(f"/residents/{anna}/usual")).status_code == 404
    with pytest.raises(NotFound):
        await usual_of(world, NINE_IN_THE_EVENING, who="nurse-b")
    # Also the function itself asks: a scope that claims more shows nothing.
    mat = world.device("mat", "A", "anna", since_days=40)
    sleep(world, mat, 0)
    world.link("family", "anna", "status")
    asked = "SELECT * FROM nights_of(%s, %s, %s, %s, 'Asia/Shanghai', 9999)"
    about = (int(anna), YESTERDAY, YESTERDAY, NINE_IN_THE_EVENING)
    for who, nights in (("nurse", 1), ("family", 0), ("nurse-b", 0)):
        assert len(as_request(world, who, asked, *about)) == nights, who


async def test_visits_are_written_by_staff_and_read_by_a_relative_with_consent(api: Api) -> None:
    anna = api.world.ids["anna"]
    path = f"/residents/{anna}/visits"
    now = datetime.now(UTC)
    for hours, kind in ((-2, "bath"), (48, "medical"), (-26, "visit")):
        body = {"kind": kind, "at": (now + timedelta(hours=hours)).isoformat(), "note": kind}
        made = await api["nurse"].post(path, json=body)
        assert made.status_code == 201, made.text
    read = (await api["family"].get(path)).json()["items"]
    assert [one["kind"] for one in read] == ["medical", "bath", "visit"]
    assert read[0]["note"] == "medical"
    assert "recorded_by" not in read[0]
    first = (await api["family"].get(path, params={"limit": 1})).json()
    rest = (await api["family"].get(path, params={"after": first["next"]})).json()["items"]
    assert [one["kind"] for one in first["items"] + rest] == ["medical", "bath", "visit"]
    assert (await api["aunt"].get(path)).status_code == 404
    assert (await api["family"].post(path, json={"kind": "bath", "at": now.isoformat()})).is_error
    far = {"kind": "bath", "at": (now + timedelta(days=200)).isoformat()}
    assert (await api["nurse"].post(path, json=far)).status_code == 422
    gone = await api["nurse"].delete(f"{path}/{read[1]['id']}")
    assert gone.status_code == 204
    assert len((await api["family"].get(path)).json()["items"]) == 2
    assert (await api["nurse"].delete(f"{path}/{read[1]['id']}")).status_code == 404


async def test_the_nearest_telephone_up_the_tree_is_the_one_to_call(api: Api) -> None:
    world = api.world
    path = f"/residents/{world.ids['anna']}/station"
    assert (await api["family"].get(path)).json() == {"name": None, "phone": None}
    for place, phone in (("district", "+86 23 4980 0001"), ("A", "023-4980 0002")):
        changed = await api["admin"].patch(f"/places/{world.ids[place]}", json={"phone": phone})
        assert changed.json()["phone"] == phone, changed.text
    assert (await api["family"].get(path)).json() == {"name": "A", "phone": "023-4980 0002"}
    await api["supervisor"].patch(f"/places/{world.ids['A']}", json={"phone": None})
    assert (await api["family"].get(path)).json()["name"] == "district"
    assert (await api["aunt"].get(path)).status_code == 404
    home = await api["admin"].patch(
        f"/places/{world.ids['A bed']}", json={"phone": "023-4980 0002"}
    )
    assert home.status_code == 422
    odd = await api["admin"].patch(f"/places/{world.ids['A']}", json={"phone": "javascript:x"})
    assert odd.status_code == 422
    foreign = await api["supervisor"].patch(
        f"/places/{world.ids['B']}", json={"phone": "023-4980 0002"}
    )
    assert foreign.status_code == 404


async def test_what_was_done_is_told_by_role_without_names_and_notes(api: Api) -> None:
    alarm = api.world.alarm("anna", "heart_rate_high", "physiological")
    await api["nurse"].post(f"/alarms/{alarm}/acknowledge")
    await api["nurse"].post(f"/alarms/{alarm}/note", json={"text": "a private remark"})
    await api["supervisor"].post(f"/alarms/{alarm}/arrive")
    await api["nurse"].post(
        f"/alarms/{alarm}/close", json={"outcome": "real", "note": "another remark"}
    )
    for who in ("family", "aunt"):
        told = await api[who].get(f"/alarms/{alarm}/answers")
        assert [(one["change"], one["role"]) for one in told.json()["items"]] == [
            ("raised", None),
            ("acknowledged", "nurse"),
            ("on_site", "supervisor"),
            ("closed", "nurse"),
        ]
        assert "remark" not in told.text
    assert (await api["nurse-b"].get(f"/alarms/{alarm}/answers")).status_code == 404
    # The function itself asks too, also of somebody who has guessed the number.
    for who, steps in (("aunt", 4), ("nurse-b", 0)):
        assert len(as_request(api.world, who, "SELECT * FROM answers_to(%s)", int(alarm))) == steps
    api.world.link("aunt", "anna", "status")
    assert (await api["aunt"].get(f"/alarms/{alarm}/answers")).status_code == 404


async def test_a_relative_reads_its_own_consents_also_those_that_ended(api: Api) -> None:
    api.world.link("family", "anna", "status")
    mine = (await api["family"].get("/me/consents")).json()["items"]
    assert [(one["scopes"], one["in_force"]) for one in mine] == [
        (["status"], True),
        (["status", "vitals", "alarms", "events"], False),
    ]
    assert {one["resident_id"] for one in mine} == {api.world.ids["anna"]}
    (hers,) = (await api["aunt"].get("/me/consents")).json()["items"]
    assert hers["scopes"] == ["alarms"]
    assert (await api["nurse"].get("/me/consents")).json()["items"] == []


async def test_quiet_hours_are_a_relatives_own_and_make_sense(api: Api) -> None:
    path = "/me/quiet-hours"
    none = {"from": None, "until": None, "only_urgent": False}
    assert (await api["family"].get(path)).json() == none
    night = {"from": "22:00", "until": "06:30", "only_urgent": False}
    assert (await api["family"].put(path, json=night)).json() == night
    assert (await api["family"].get(path)).json() == night
    assert (await api["aunt"].get(path)).json() == none
    assert (await api["family"].put(path, json={"only_urgent": True})).status_code == 200
    assert (await api["family"].get(path)).json() == none | {"only_urgent": True}
    for odd in (
        {"from": "22:00"}, {"from": "22:00", "until": "22:00"}, {"from": "24:00", "until": "1:00"},
    ):  # fmt: skip
        assert (await api["family"].put(path, json=odd)).status_code == 422
    # Who is on duty is called.
    assert (await api["nurse"].put(path, json=night)).status_code == 403


async def test_status_tells_when_something_was_last_heard_also_without_values(api: Api) -> None:
    world = api.world
    mat = world.device("mat", "A", "anna")
    world.ask(
        "INSERT INTO device_states (device_key, heard_at) VALUES (%s, now() - interval '1 minute')",
        mat,
    )
    world.link("family", "anna", "status")
    status = (await api["family"].get(f"/residents/{world.ids['anna']}/status")).json()
    age = datetime.now(UTC) - datetime.fromisoformat(status["heard_at"])
    assert timedelta(seconds=50) < age < timedelta(seconds=90)
    assert status["latest"] == {}
