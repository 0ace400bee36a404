"""What a house is set up with: limits by template, drafts of ladders, device health, backups."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from anxin.db.backups import note_backup
from tests.integration.api_world import Api, running, settle


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn)) as serving:
        yield serving


def limits_of(api: Api, name: str) -> dict[str, float]:
    found: dict[str, float] = api.world.one(
        "SELECT limits FROM residents WHERE id = %s", int(api.world.ids[name])
    )
    return found


async def template(api: Api, who: str = "supervisor", **changes: Any) -> Any:
    body = {"name": "heart", "limits": {"hr_high": 110, "spo2_low": 92}} | changes
    return await api[who].post("/limit-templates", json=body)


async def test_a_template_sets_its_limits_for_a_whole_place_and_leaves_the_others(api: Api) -> None:
    world = api.world
    world.ask('UPDATE residents SET limits = \'{"hr_low": 45, "hr_high": 125}\'')
    made = await template(api)
    assert made.status_code == 201, made.text
    assert made.json()["place_id"] == world.ids["A"], "a supervisor's is its own place's"
    path = f"/limit-templates/{made.json()['id']}/apply"
    done = await api["supervisor"].post(path, json={"place_id": world.ids["A"]})
    assert done.json() == {"changed": 1}, done.text
    assert limits_of(api, "anna") == {"hr_low": 45, "hr_high": 110, "spo2_low": 92}
    assert limits_of(api, "bela") == {"hr_low": 45, "hr_high": 125}
    again = await api["supervisor"].post(path, json={"resident_ids": [world.ids["anna"]]})
    assert again.json() == {"changed": 0}


async def test_a_template_is_for_all_named_or_none_and_never_for_strangers(api: Api) -> None:
    world = api.world
    made = (await template(api)).json()
    path = f"/limit-templates/{made['id']}/apply"
    both = [world.ids["anna"], world.ids["bela"]]
    refused = await api["supervisor"].post(path, json={"resident_ids": both})
    assert refused.status_code == 404
    assert limits_of(api, "anna") == {}
    elsewhere = await api["supervisor"].post(path, json={"place_id": world.ids["B"]})
    assert elsewhere.status_code == 404
    assert (await api["nurse"].post(path, json={"resident_ids": both[:1]})).status_code == 403


@pytest.mark.parametrize("limits", [{"hr_high": 500}, {"hr_highest": 100}, {}, {"hr_high": "much"}])
async def test_a_template_outside_the_bounds_is_refused(api: Api, limits: Any) -> None:
    assert (await template(api, limits=limits)).status_code == 422
    bounds = (await api["supervisor"].get("/limits")).json()
    assert bounds["hr_high"] == {"default": 120, "low": 90, "high": 150, "unit": "/min"}
    second = (await api["supervisor"].get("/limits?spo2_scale=2")).json()
    assert [one["spo2_low"]["default"] for one in (bounds, second)] == [90, 85]


async def test_a_template_for_everywhere_is_seen_by_all_and_removed_by_its_maker(api: Api) -> None:
    made = await template(api, "admin", name="everywhere")
    assert made.json()["place_id"] is None
    seen = (await api["supervisor"].get("/limit-templates")).json()["items"]
    assert [one["name"] for one in seen] == ["everywhere"]
    path = f"/limit-templates/{made.json()['id']}"
    assert (await api["supervisor"].delete(path)).status_code == 404
    assert (await api["admin"].delete(path)).status_code == 204
    twice = [await template(api, "admin", name="one") for _ in range(2)]
    assert [one.status_code for one in twice] == [201, 409]


async def test_a_draft_of_a_ladder_is_judged_and_not_stored(api: Api) -> None:
    draft = {
        "place_id": api.world.ids["A"],
        "priority": "low",
        "steps": [{"after_seconds": 0, "audience": "robot", "channels": ["robot"]}],
    }
    judged = await api["supervisor"].post("/ladders/verdict", json=draft)
    assert [fault["code"] for fault in judged.json()] == ["nobody"], judged.text
    assert api.world.one("SELECT count(*) FROM ladders") == 0
    foreign = draft | {"place_id": api.world.ids["B"]}
    assert (await api["supervisor"].post("/ladders/verdict", json=foreign)).status_code == 404


async def test_health_of_devices_counts_each_station_of_ones_own(api: Api) -> None:
    world = api.world
    for name, resident, heard, battery, firmware in (
        ("quiet", "anna", "3 hours", 90, "1.0"), ("flat", "anna", "1 second", 4, "1.1"),
        ("new", "anna", None, None, None), ("spare", None, "1 minute", 14, "1.1"),
    ):  # fmt: skip
        key = world.device(name, "A", resident)
        if heard:
            world.ask(
                "INSERT INTO device_states (device_key, online, heard_at, changed_at, battery,"
                " firmware) VALUES (%s, true, now() - %s::interval, now(), %s, %s)",
                key, heard, battery, firmware,
            )  # fmt: skip
    world.device("gone", "A")
    world.ask("UPDATE devices SET revoked_at = now() WHERE id = 'gone'")
    world.device("far", "B", "bela")
    answer = await api["supervisor"].get("/reports/devices")
    (station,) = answer.json()["items"]
    counted = {name: station[name] for name in (
        "station", "devices", "assigned", "silent", "never_heard", "battery_low",
        "battery_critical", "battery_unknown", "firmware")}  # fmt: skip
    assert counted == {
        "station": "A", "devices": 4, "assigned": 3, "silent": 1, "never_heard": 1,
        "battery_low": 2, "battery_critical": 1, "battery_unknown": 1,
        "firmware": {"bed_sensor": {"": 1, "1.0": 1, "1.1": 2}},
    }  # fmt: skip
    everywhere = (await api["admin"].get("/reports/devices")).json()["items"]
    assert [one["station"] for one in everywhere] == ["A", "B"]


async def test_a_backup_that_was_made_is_told_to_administrators_only(api: Api) -> None:
    now = datetime.now(UTC)
    await note_backup(api.world.dsn, {
        "made_at": now, "file": "anxin.backup", "bytes": 12_345, "rows": 678, "tables": 50,
        "encrypted": True, "version": "1.0", "verified_at": now,
    })  # fmt: skip
    (one,) = (await api["admin"].get("/backups")).json()["items"]
    assert (one["file"], one["bytes"], one["rows"], one["encrypted"]) == (
        "anxin.backup", 12_345, 678, True)  # fmt: skip
    assert (await api["supervisor"].get("/backups")).status_code == 403
