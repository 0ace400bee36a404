"""Series and status: whatever way the database takes, the numbers are those of the readings."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.api_world import Api, World, running, settle

NOW = datetime.now(UTC).replace(microsecond=0)
Reading = tuple[datetime, int, float, float | None]


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn)) as serving:
        yield serving


def store(world: World, readings: list[Reading], *, due: bool) -> None:
    """Store readings `(ts, device key, hr, temp)`, and mark their minutes for the rollup."""
    with world.sql() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO telemetry (ts, received_at, device_key, hr, temp)"
            " VALUES (%s, now(), %s, %s, %s)",
            [(ts, key, hr, temp) for ts, key, hr, temp in readings],
        )
        if due:
            cursor.executemany(
                "INSERT INTO rollup_due (device_key, minute) VALUES (%s, date_trunc('minute', %s))",
                [(key, ts) for ts, key, _, _ in readings],
            )


def expected(
    readings: list[Reading], start: datetime, end: datetime, step_s: int
) -> dict[str, list[list[float]]]:
    """Return the answer that the route must give, worked out the slow way."""
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for ts, _, hr, temp in readings:
        if start <= ts < end:
            bucket = int(ts.timestamp() // step_s * step_s) * 1000
            values["hr"][bucket].append(hr)
            if temp is not None:
                values["temp"][bucket].append(temp)
    return {
        metric: [
            [t, pytest.approx(sum(v) / len(v), rel=1e-5), min(v), max(v), len(v)]
            for t, v in sorted(buckets.items())
        ]
        for metric, buckets in sorted(values.items())
    }


@pytest.mark.parametrize("step_s", [1, 7, 45, 60, 90, 300, 3600, 7200])
async def test_a_series_counts_every_reading_of_its_resident_once(api: Api, step_s: int) -> None:
    world = api.world
    chance = random.Random(step_s)  # noqa: S311  # repeatable numbers, not secrets
    first, second = world.device("mat", "A"), world.device("band", "A")
    handed_over = NOW - timedelta(minutes=95, seconds=17)
    for key, resident, since, until in (
        (first, "anna", NOW - timedelta(hours=9), handed_over),
        (first, "bela", handed_over, None),
        (second, "anna", NOW - timedelta(hours=2, seconds=41), None),
    ):
        world.ask(
            "INSERT INTO assignments (device_key, resident_id, during)"
            " VALUES (%s, %s, tstzrange(%s, %s))",
            key, int(world.ids[resident]), since, until,
        )  # fmt: skip

    def some(count: int, key: int) -> list[Reading]:
        return [
            (
                NOW - timedelta(seconds=seconds),
                key,
                float(chance.randint(40, 120)),
                chance.choice([None, 36.5, 37.25]),
            )
            for seconds in chance.sample(range(30, 4 * 3600), count)
        ]

    settled = some(300, first) + some(300, second)
    store(world, settled, due=True)
    world.ask("SELECT roll_up(now() + interval '1 hour', 100000)")
    taken = {(ts, key) for ts, key, _, _ in settled}
    late = [one for one in some(40, first) + some(40, second) if (one[0], one[1]) not in taken]
    store(world, late, due=True)
    of_anna = [
        one
        for one in settled + late
        if (one[1] == first and one[0] < handed_over)
        or (one[1] == second and one[0] >= NOW - timedelta(hours=2, seconds=41))
    ]
    start, end = NOW - timedelta(hours=3, minutes=7, seconds=3), NOW - timedelta(seconds=100)
    answer = await api["nurse"].get(
        f"/residents/{world.ids['anna']}/vitals",
        params={"from": start.isoformat(), "to": end.isoformat(), "step": str(step_s)},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json() == expected(of_anna, start, end, step_s)


async def test_the_server_chooses_a_step_that_gives_few_points(api: Api) -> None:
    world = api.world
    key = world.device("mat", "A", "anna")
    readings: list[Reading] = [
        (NOW - timedelta(seconds=5 * n + 1), key, 60.0 + n % 9, 36.5) for n in range(4000)
    ]
    store(world, readings, due=True)
    path = f"/residents/{world.ids['anna']}/vitals"
    chosen = await api["nurse"].get(path)
    points = sum(len(series) for series in chosen.json().values())
    assert 100 < points <= 2000
    assert int(chosen.headers["anxin-step"]) > 1
    assert sum(point[4] for point in chosen.json()["hr"]) == 4000
    brief = {"from": (NOW - timedelta(minutes=5)).isoformat(), "to": NOW.isoformat()}
    assert (await api["nurse"].get(path, params=brief)).headers["anxin-step"] == "1"


async def test_more_than_ten_thousand_points_are_refused_with_advice(api: Api) -> None:
    world = api.world
    key = world.device("mat", "A", "anna")
    world.ask(
        "INSERT INTO telemetry (ts, received_at, device_key, hr, rr)"
        " SELECT t, t, %s, 60, 14 FROM generate_series(now() - interval '5001 seconds',"
        " now() - interval '1 second', interval '1 second') AS t",
        key,
    )
    path = f"/residents/{world.ids['anna']}/vitals"
    refused = await api["nurse"].get(path, params={"step": "1"})
    assert refused.status_code == 422
    assert "larger step" in refused.json()["detail"]
    allowed = await api["nurse"].get(path, params={"step": "2"})
    assert allowed.status_code == 200
    for wrong in (
        {"step": "0"},
        {"step": "x"},
        {"from": NOW.isoformat(), "to": NOW.isoformat()},
        {"from": "2026-01-01T00:00:00"},
        {"from": "0001-01-01T00:00:00+14:00"},
        {"from": "1971-01-01T00:00:00Z"},
    ):
        assert (await api["nurse"].get(path, params=wrong)).status_code == 422, wrong


async def test_values_come_back_as_they_were_sent(api: Api) -> None:
    key = api.world.device("cuff", "A", "anna")
    store(api.world, [(NOW - timedelta(hours=1), key, 72.0, 36.6)], due=False)
    path = f"/residents/{api.world.ids['anna']}/vitals"
    series = (await api["nurse"].get(path, params={"step": "1"})).json()
    assert series["temp"] == [[(NOW - timedelta(hours=1)).timestamp() * 1000, 36.6, 36.6, 36.6, 1]]


class Bed:
    """Anna's bed mat, and what the platform last heard of it."""

    def __init__(self, api: Api) -> None:
        """Assign it since yesterday."""
        self.api = api
        self.key = api.world.device("mat", "A", "anna")

    def hears(self, ago: timedelta, **metrics: object) -> None:
        """Store a newest reading of some time ago."""
        at = datetime.now(UTC) - ago
        at_ms = int(at.timestamp() * 1000)
        self.api.world.ask(
            "INSERT INTO latest (device_key, ts, received_at, metrics)"
            " VALUES (%s, %s, %s, %s::jsonb) ON CONFLICT (device_key) DO UPDATE"
            " SET ts = excluded.ts, received_at = excluded.received_at, metrics = excluded.metrics",
            self.key,
            at,
            at,
            "{"
            + ",".join(
                f'"{name}": [{value if not isinstance(value, str) else chr(34) + value + chr(34)},'
                f" {at_ms}]"
                for name, value in metrics.items()
            )
            + "}",
        )

    async def status(self, user: str = "nurse") -> dict[str, Any]:
        """Return Anna's status as a user sees it."""
        path = f"/residents/{self.api.world.ids['anna']}/status"
        answer = await self.api[user].get(path)
        assert answer.status_code == 200, answer.text
        status: dict[str, Any] = answer.json()
        return status


async def test_nobody_is_well_without_a_sign_of_life(api: Api) -> None:
    path = f"/residents/{api.world.ids['anna']}/status"
    unmonitored = (await api["nurse"].get(path)).json()
    assert (unmonitored["state"], unmonitored["monitored"]) == ("unknown", False)
    bed = Bed(api)
    never_heard = await bed.status()
    assert (never_heard["state"], never_heard["monitored"]) == ("unknown", True)
    bed.hears(timedelta(minutes=16), hr=61, presence="present")
    silent = await bed.status()
    assert (silent["state"], silent["presence"]) == ("unknown", "unknown")
    assert silent["latest"]["hr"]["value"] == 61
    bed.hears(timedelta(seconds=5), hr=72, temp=36.6, presence="present", lat=29.3, lon=105.9)
    well = await bed.status()
    assert (well["state"], well["presence"]) == ("well", "present")
    assert well["latest"].keys() == {"hr", "temp", "lat", "lon"}
    at = datetime.fromisoformat(well["latest"]["hr"]["at"])
    assert abs(datetime.now(UTC) - at) < timedelta(seconds=30)


async def test_what_a_device_heard_of_somebody_else_says_nothing(api: Api) -> None:
    bed = Bed(api)
    bed.hears(timedelta(minutes=5), hr=72)
    api.world.ask("UPDATE assignments SET during = tstzrange(now() - interval '1 minute', NULL)")
    status = await bed.status()
    assert (status["state"], status["latest"]) == ("unknown", {})


@pytest.mark.parametrize(
    ("kind", "class_", "priority", "recovered", "state"),
    [
        ("sos", "emergency", 3, False, "emergency"),
        ("heart_rate_low", "physiological", 3, False, "emergency"),
        ("smoke", "safety", 3, False, "emergency"),
        ("heart_rate_low", "physiological", 3, True, "attention"),
        ("device_fault", "technical", 3, False, "attention"),
        ("spo2_low", "physiological", 2, False, "attention"),
        ("battery_low", "technical", 1, False, "well"),
    ],
)
async def test_the_state_follows_the_gravest_alarm_that_is_not_closed(
    api: Api, kind: str, class_: str, priority: int, recovered: bool, state: str
) -> None:
    bed = Bed(api)
    bed.hears(timedelta(seconds=5), hr=72)
    alarm = api.world.alarm("anna", kind, class_, priority)
    if recovered:
        api.world.ask("SELECT recover_alarm(%s, %s, 'test')", f"r{api.world.ids['anna']}", kind)
    status = await bed.status()
    assert (status["state"], status["open_alarms"]) == (state, 1)
    for action, body in (("acknowledge", None), ("close", {"outcome": "test"})):
        await api["nurse"].post(f"/alarms/{alarm}/{action}", json=body)
    ended = await bed.status()
    assert (ended["state"], ended["open_alarms"]) == ("well", 0)


async def test_a_relative_sees_the_sides_that_were_consented_to(api: Api) -> None:
    bed = Bed(api)
    bed.hears(timedelta(seconds=5), hr=72, presence="present", lat=29.3, lon=105.9)
    assert (await bed.status("family"))["latest"].keys() == {"hr"}
    api.world.link("family", "anna", "status")
    status = await bed.status("family")
    assert (status["state"], status["latest"], status["presence"]) == ("well", {}, None)
    vitals = f"/residents/{api.world.ids['anna']}/vitals"
    assert (await api["family"].get(vitals)).status_code == 404
    api.world.link("family", "anna", "status", "vitals", "location")
    assert (await bed.status("family"))["latest"].keys() == {"hr", "lat", "lon"}
