"""Shifts and ladders over the API: what is kept, and what the linter refuses."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest_asyncio

from tests.integration.api_world import Api, running, settle

NOW = datetime.now(UTC)


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    """Return a running API with two facilities."""
    async with running(settle(dsn)) as serving:
        yield serving


def shift(api: Api, post: str, begins: float, ends: float, **more: str) -> dict[str, Any]:
    """Return a shift of the nurse of A, in hours from now."""
    return {
        "place_id": api.world.ids["A"],
        "user_id": api.world.ids["nurse"],
        "post": post,
        "begins_at": (NOW + timedelta(hours=begins)).isoformat(),
        "ends_at": (NOW + timedelta(hours=ends)).isoformat(),
        **more,
    }


async def staffed(api: Api) -> list[dict[str, Any]]:
    """Put somebody on each post for the whole week and return the shifts."""
    items = [shift(api, post, -1, 24 * 8) for post in ("first", "second", "supervisor")]
    answer = await api["supervisor"].post("/shifts", json={"items": items})
    assert answer.status_code == 201, answer.text
    made: list[dict[str, Any]] = answer.json()
    return made


async def test_a_roster_without_gaps_is_taken_and_read_by_its_staff_only(api: Api) -> None:
    made = await staffed(api)
    read = (await api["nurse"].get("/shifts")).json()["items"]
    assert [one["id"] for one in read] == [one["id"] for one in made]
    assert (await api["nurse-b"].get("/shifts")).json()["items"] == []
    assert (await api["family"].get("/shifts")).status_code == 403
    assert (await api["nurse"].post("/shifts", json={"items": made[:0]})).status_code == 403


async def test_a_roster_that_leaves_a_post_empty_is_refused_in_both_languages(api: Api) -> None:
    items = [shift(api, "first", -1, 8)]
    answer = await api["supervisor"].post("/shifts", json={"items": items})
    assert answer.status_code == 422
    faults = answer.json()["faults"]
    assert {(one["code"], one["audience"]) for one in faults} >= {("nobody", "first")}
    assert all("无人" in one["zh"] and "nobody" in one["en"] for one in faults)
    assert (await api["nurse"].get("/shifts")).json()["items"] == []
    answer = await api["supervisor"].post("/shifts?accept_gaps=true", json={"items": items})
    assert answer.status_code == 201


async def test_a_shift_that_nobody_replaces_cannot_be_removed(api: Api) -> None:
    first, *_ = await staffed(api)
    assert (await api["supervisor"].delete(f"/shifts/{first['id']}")).status_code == 422
    again = {"items": [shift(api, "first", -1, 24 * 8)]}
    assert (await api["supervisor"].post("/shifts", json=again)).status_code == 201
    assert (await api["supervisor"].delete(f"/shifts/{first['id']}")).status_code == 204
    assert (await api["supervisor"].delete(f"/shifts/{first['id']}")).status_code == 404


async def test_nobody_is_put_on_a_post_outside_the_own_place_or_as_a_relative(api: Api) -> None:
    elsewhere = shift(api, "first", 0, 8, place_id=api.world.ids["B"])
    for item in (
        elsewhere,
        shift(api, "first", 0, 8, user_id=api.world.ids["nurse-b"]),
        shift(api, "first", 0, 8, user_id=api.world.ids["family"]),
    ):
        answer = await api["supervisor"].post("/shifts?accept_gaps=true", json={"items": [item]})
        assert answer.status_code == 404, answer.text
    backwards = {"items": [shift(api, "first", 8, 0)]}
    assert (await api["supervisor"].post("/shifts", json=backwards)).status_code == 422


def ladder(api: Api, *steps: tuple[int, str, str], **more: object) -> dict[str, Any]:
    """Return a high ladder of A."""
    return {
        "place_id": api.world.ids["A"],
        "priority": "high",
        "steps": [
            {"after_seconds": seconds, "audience": audience, "channels": [way]}
            for seconds, audience, way in steps
        ],
        **more,
    }


async def test_a_ladder_is_kept_replaced_shown_in_force_and_removed(api: Api) -> None:
    boss = api["supervisor"]
    steps = [(0, "wall", "station"), (0, "first", "station"), (20, "second", "station")]
    made = await boss.put("/ladders", json=ladder(api, *steps, lease_seconds=300))
    assert made.status_code == 200, made.text
    again = await boss.put("/ladders", json=ladder(api, *steps[:2]))
    assert again.json()["id"] == made.json()["id"]
    bed = api.world.ids["A bed"]
    verdict = (await api["nurse"].get(f"/ladders/verdict?place_id={bed}")).json()
    high = next(one for one in verdict if one["priority"] == "high")
    assert (high["place_id"], len(high["steps"]), high["faults"]) == (api.world.ids["A"], 2, [])
    assert {one["priority"] for one in verdict} == {"high", "medium", "low"}
    assert len((await api["nurse"].get("/ladders")).json()["items"]) == 1
    assert (await boss.delete(f"/ladders/{made.json()['id']}")).status_code == 204
    assert (await api["nurse"].get("/ladders")).json()["items"] == []


async def test_a_ladder_with_a_step_that_reaches_nobody_is_refused(api: Api) -> None:
    boss = api["supervisor"]
    for steps, code in (
        ([(0, "first", "phone")], "nobody"),
        ([(5, "first", "station")], "late_start"),
        ([], "empty"),
        ([(0, "cook", "station")], "unknown_audience"),
    ):
        answer = await boss.put("/ladders", json=ladder(api, *steps))
        assert answer.status_code == 422
        assert [one["code"] for one in answer.json()["faults"]] == [code]
    other = ladder(api, (0, "wall", "station"), place_id=api.world.ids["B"])
    assert (await boss.put("/ladders", json=other)).status_code == 404
    assert (await boss.get(f"/ladders/verdict?place_id={api.world.ids['B']}")).status_code == 404
