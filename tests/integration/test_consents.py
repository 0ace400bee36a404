"""What a relative sees follows from the consents in force, at each moment, also on open streams."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from tests.integration.api_world import Api, running, settle
from tests.integration.test_api_stream import told


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    world = settle(dsn)
    world.ask("DELETE FROM consents")
    # Relatives belong to the place whose supervisor made their account.
    query = "UPDATE users SET place_id = %s WHERE username = 'family'"
    world.ask(query, int(world.ids["A"]))
    world.log_in("family")  # another place ends a session
    async with running(world) as serving:
        yield serving


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def path(api: Api, rest: str = "", whose: str = "anna") -> str:
    return f"/residents/{api.world.ids[whose]}/consents{rest}"


async def record(api: Api, *scopes: str, **more: Any) -> dict[str, Any]:
    body = {"purpose": "family", "user_id": api.world.ids["family"], "scopes": scopes} | more
    answer = await api["supervisor"].post(path(api), json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def seen(api: Api) -> list[str]:
    """Return what the relative may see of Anna, as the session says."""
    me = (await api["family"].get("/me")).json()
    return list(me["family"].get(api.world.ids["anna"], []))


async def test_a_guardians_consent_on_paper_opens_what_it_says_and_keeps_who_when_how(
    api: Api,
) -> None:
    given_at, until = soon(-3600), soon(3600)
    one = await record(
        api, "vitals", "status", given_by="guardian", relation="女儿", how="paper",
        given_at=given_at, until_at=until,
    )  # fmt: skip
    assert await seen(api) == ["status", "vitals"]
    (kept,) = (await api["admin"].get(path(api))).json()["items"]
    assert kept == one
    wanted = {
        "given_by": "guardian", "relation": "女儿", "how": "paper", "in_force": True,
        "recorded_by": "supervisor", "withdrawn_at": None, "username": "family",
    }  # fmt: skip
    assert wanted.items() <= kept.items()
    assert datetime.fromisoformat(kept["given_at"]) == datetime.fromisoformat(given_at)
    assert datetime.fromisoformat(kept["until_at"]) == datetime.fromisoformat(until)


async def test_several_consents_open_their_union_and_each_ends_by_itself(api: Api) -> None:
    first = await record(api, "status", "vitals")
    second = await record(api, "vitals", "alarms")
    assert await seen(api) == ["alarms", "status", "vitals"]
    assert (await api["supervisor"].delete(path(api, f"/{first['id']}"))).status_code == 204
    assert await seen(api) == ["alarms", "vitals"]
    assert (await api["supervisor"].delete(path(api, f"/{first['id']}"))).status_code == 404
    assert (await api["supervisor"].delete(path(api, f"/{second['id']}"))).status_code == 204
    assert await seen(api) == []
    kept = (await api["supervisor"].get(path(api))).json()["items"]
    assert [one["withdrawn_by"] for one in kept] == ["supervisor", "supervisor"]


async def test_a_consent_that_runs_out_closes_its_scopes_only_and_at_once(api: Api) -> None:
    await record(api, "status")
    await record(api, "vitals", "status", until_at=soon(1.5))
    status, vitals = (f"/residents/{api.world.ids['anna']}/{name}" for name in ("status", "vitals"))
    assert (await api["family"].get(vitals)).status_code == 200
    await asyncio.sleep(1.6)  # the promise under test is this time
    assert (await api["family"].get(vitals)).status_code == 404
    assert (await api["family"].get(status)).status_code == 200
    assert await seen(api) == ["status"]


async def test_an_open_stream_is_closed_to_what_ran_out_the_moment_it_does(api: Api) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=2)
    await record(api, "alarms", until_at=ends.isoformat())
    async with api.stream("family") as stream:
        await stream.next("ready")
        api.world.alarm("anna", "sos")
        await stream.next("alarm")
        await asyncio.sleep((ends - datetime.now(UTC)).total_seconds() + 0.25)
        api.world.alarm("anna", "fall")
        assert await told(stream) == []


async def test_withdrawing_closes_an_open_stream(api: Api) -> None:
    one = await record(api, "alarms")
    async with api.stream("family") as stream:
        await stream.next("ready")
        api.world.alarm("anna", "sos")
        await stream.next("alarm")
        await api["supervisor"].delete(path(api, f"/{one['id']}"))
        await asyncio.sleep(0.5)
        api.world.alarm("anna", "fall")
        assert await told(stream) == []


async def test_the_short_way_replaces_what_was_allowed_and_leaves_the_history(api: Api) -> None:
    family = f"/residents/{api.world.ids['anna']}/family"
    for scopes in (["status", "vitals"], ["status"]):
        body = {"user_id": api.world.ids["family"], "scopes": scopes}
        linked = (await api["supervisor"].post(family, json=body)).json()
        assert linked["scopes"] == scopes == await seen(api)
    history = (await api["supervisor"].get(path(api))).json()["items"]
    assert [(one["scopes"], one["in_force"], one["given_by"]) for one in history] == [
        (["status"], True, "unstated"), (["status", "vitals"], False, "unstated")
    ]  # fmt: skip
    await api["supervisor"].delete(f"{family}/{api.world.ids['family']}")
    assert await seen(api) == []
    assert (await api["supervisor"].get(family)).json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["everything"]},
        {"scopes": []},
        {"given_by": "guardian"},
        {"given_by": "elder", "relation": "子"},
        {"given_at": "2199-01-01T00:00:00Z"},
        {"until_at": "2020-01-01T00:00:00Z"},
        {"purpose": "research"},
        {"user_id": None},
        {"how": "telepathy"},
    ],
)
async def test_a_consent_that_cannot_be_is_refused(api: Api, body: dict[str, Any]) -> None:
    whole = {"purpose": "family", "user_id": api.world.ids["family"], "scopes": ["status"]} | body
    assert (await api["supervisor"].post(path(api), json=whole)).status_code == 422
    assert api.world.one("SELECT count(*) FROM consents") == 0


async def test_only_who_leads_may_record_consents_and_only_of_own_residents(api: Api) -> None:
    body = {"purpose": "family", "user_id": api.world.ids["family"], "scopes": ["status"]}
    for role in ("nurse", "integrator", "family"):
        assert (await api[role].post(path(api), json=body)).status_code == 403
        assert (await api[role].get(path(api))).status_code == 403
    foreign = path(api, whose="bela")
    assert (await api["supervisor"].post(foreign, json=body)).status_code == 404
    nurse = body | {"user_id": api.world.ids["nurse"]}
    assert (await api["admin"].post(path(api), json=nurse)).status_code == 404
    research = {"purpose": "research", "scopes": ["vitals"], "given_by": "elder", "how": "app"}
    assert (await api["supervisor"].post(path(api), json=research)).status_code == 201
    assert await seen(api) == []


async def test_history_cannot_be_written_over_even_by_the_owner_of_the_database(api: Api) -> None:
    one = await record(api, "status")
    for change in (
        "scopes = '{status,vitals}'",
        "given_by = 'elder'",
        "until_at = now() + interval '1 year'",
        "recorded_by = NULL, given_at = now() - interval '1 day'",
    ):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            api.world.ask(f"UPDATE consents SET {change} WHERE id = {one['id']}")
    await api["supervisor"].delete(path(api, f"/{one['id']}"))
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
        api.world.ask(f"UPDATE consents SET withdrawn_at = NULL WHERE id = {one['id']}")
