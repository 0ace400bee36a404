"""Contacts, channels, deliveries and the answering report as a user meets them."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from anxin.config import Settings
from tests.integration.api_world import Api, World, running, settle
from tests.integration.test_api_routes import done, refused
from tests.recording import Provider, Reply


@pytest.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn)) as serving:
        state = serving.server.config.app.state  # type: ignore[union-attr]  # it is our application
        settings = Settings(database=dsn, allow_private_webhooks=True, receipt_token="token")
        state.services = replace(state.services, settings=settings)
        yield serving


async def test_everybody_sets_their_own_contacts_and_sees_no_secret_again(api: Api) -> None:
    new = {"channel": "webhook", "address": "https://example.com/hook", "secret": "hush"}
    made = done(await api["family"].post("/contacts", json=new), 201)
    assert (made["user_id"], made["has_secret"]) == (api.world.ids["family"], True)
    assert "secret" not in made
    assert [one["id"] for one in done(await api["family"].get("/contacts"))["items"]] == [
        made["id"]
    ]
    assert done(await api["nurse"].get("/contacts"))["items"] == []
    path = f"/contacts/{made['id']}"
    refused(await api["nurse"].patch(path, json={"enabled": False}), 404)
    refused(await api["supervisor"].delete(path), 404)
    changed = done(await api["family"].patch(path, json={"enabled": False, "secret": ""}))
    assert (changed["enabled"], changed["has_secret"]) == (False, False)
    done(await api["family"].delete(path), 204)
    assert done(await api["family"].get("/contacts"))["items"] == []


async def test_who_leads_a_place_sets_its_robot_and_its_peoples_contacts_and_no_others(
    api: Api,
) -> None:
    ids = api.world.ids
    robot = {
        "channel": "wecom", "place_id": ids["A"], "office": "robot",
        "address": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=k",
    }  # fmt: skip
    phone = {"channel": "voice", "address": "13800138000", "user_id": ids["nurse"]}
    lead = api["supervisor"]
    made = done(await lead.post("/contacts", json=robot), 201)
    done(await lead.post("/contacts", json=phone), 201)
    assert len(done(await lead.get("/contacts"))["items"]) == 2
    assert len(done(await lead.get(f"/contacts?user_id={ids['nurse']}"))["items"]) == 1
    assert len(done(await lead.get(f"/contacts?place_id={ids['A bed']}"))["items"]) == 0
    refused(await lead.post("/contacts", json=phone | {"user_id": ids["nurse-b"]}), 404)
    refused(await lead.post("/contacts", json=robot | {"place_id": ids["B"]}), 404)
    refused(await api["nurse"].post("/contacts", json=phone | {"user_id": ids["admin"]}), 403)
    refused(await api["nurse"].post("/contacts", json=robot), 403)
    refused(await api["nurse-b"].delete(f"/contacts/{made['id']}"), 404)
    assert len(done(await api["admin"].get("/contacts"))["items"]) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"channel": "pigeon", "address": "x"},
        {"channel": "station", "address": "x"},
        {"channel": "webhook", "address": "ftp://x"},
        {"channel": "webhook", "address": "https://x", "place_id": "1"},
        {"channel": "webhook", "address": "https://x", "place_id": "1", "user_id": "1",
         "office": "robot"},
    ],
)  # fmt: skip
async def test_a_contact_that_could_never_work_is_refused(api: Api, wrong: dict[str, Any]) -> None:
    refused(await api["admin"].post("/contacts", json=wrong), 422)


async def test_the_test_button_sends_now_and_tells_the_outcome_in_plain_words(api: Api) -> None:
    async with Provider(lambda _: Reply(None, 200)).serving() as stub:
        new = {"channel": "webhook", "address": stub.address}
        made = done(await api["nurse"].post("/contacts", json=new), 201)
        path = f"/contacts/{made['id']}/test"
        told = done(await api["nurse"].post(path))
        assert told["ok"] is True
        assert "已发出" in told["zh"]
        assert stub.heard[0].json["kind"] == "test"
        stub.answer = lambda _: Reply(None, 410)
        told = done(await api["nurse"].post(path))
        assert (told["ok"], told["outcome"]) == (False, "failed")
        stub.answer = lambda _: Reply(None, 500)
        assert done(await api["nurse"].post(path))["outcome"] == "passing"
        refused(await api["nurse-b"].post(path), 404)
    (seen,) = done(await api["nurse"].get("/contacts"))["items"]
    assert seen["failures"] == 2
    assert seen["failing_since"] is not None
    assert seen["last_ok_at"] is not None
    voice = {"channel": "voice", "address": "13800138000"}
    made = done(await api["nurse"].post("/contacts", json=voice), 201)
    told = done(await api["nurse"].post(f"/contacts/{made['id']}/test"))
    assert "ANXIN_VOICE_URL" in told["en"]


async def test_channels_are_listed_with_what_they_still_need(api: Api) -> None:
    channels = {one["name"]: one for one in done(await api["nurse"].get("/channels"))}
    assert channels["station"]["receipts"] == ["delivered", "displayed", "sent"]
    assert channels["wecom"] == {
        "name": "wecom", "receipts": ["sent"], "most_per_minute": 20, "missing": None,
    }  # fmt: skip
    assert "ANXIN_SMTP" in channels["email"]["missing"]
    assert "delivered" in channels["aliyun_sms"]["receipts"]


async def test_a_providers_report_is_taken_with_the_token_only(api: Api) -> None:
    alarm = api.world.alarm("anna")
    for number in (1, 2):
        api.world.ask(
            "INSERT INTO deliveries (key, alarm_id, audience, channel, state, due_at, sent_at,"
            " provider_id, deadline_at) VALUES (%s, %s, 'first', 'aliyun_sms', 'sent', now(),"
            " now(), %s, now() + interval '20 s')",
            f"k{number}", int(alarm), f"biz-{number}",
        )  # fmt: skip
    report = [
        {"biz_id": "biz-1", "success": True},
        {"biz_id": "biz-2", "success": False},
        {"biz_id": "unknown", "success": True},
        "nonsense",
    ]
    nobody = api["nobody"]
    refused(await nobody.post("/channels/aliyun_sms/reports/wrong", json=report), 404)
    refused(await nobody.post("/channels/aliyun_sms/reports/token", content=b"{"), 422)
    answered = done(await nobody.post("/channels/aliyun_sms/reports/token", json=report))
    assert answered == {"code": 0, "msg": "OK"}
    seen = done(await api["nurse"].get(f"/alarms/{alarm}/deliveries"))["items"]
    found = {one["channel"] + one["state"]: one for one in seen if one["channel"] == "aliyun_sms"}
    assert found["aliyun_smsdelivered"]["delivered_at"] is not None
    assert "could not deliver" in found["aliyun_smsfailed"]["error"]
    refused(await api["nurse-b"].get(f"/alarms/{alarm}/deliveries"), 404)
    refused(await api["family"].get(f"/alarms/{alarm}/deliveries"), 403)


def happened(
    world: World,
    resident: str,
    at: datetime,
    *,
    answered: float | None = None,
    arrived: float | None = None,
    outcome: str | None = None,
    carer: str = "nurse",
    kind: str = "sos",
    class_: str = "emergency",
    priority: int = 3,
    detail: str = "{}",
) -> None:
    """Write an alarm as it was lived: raised at a time, answered and reached so many seconds on."""
    handling = (
        "closed" if outcome else "on_site" if arrived else "acknowledged" if answered else "open"
    )
    resident_id = int(world.ids[resident])
    alarm = world.one(
        "INSERT INTO alarms (subject, resident_id, kind, class, priority, raised_at, last_at,"
        " event_at, handling, outcome, closed_at, detail)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        f"r{resident_id}-{at.timestamp()}", resident_id, kind, class_, priority, at, at, at,
        handling, outcome, at + timedelta(hours=1) if outcome else None, detail,
    )  # fmt: skip
    for change, seconds in (("acknowledged", answered), ("on_site", arrived)):
        if seconds is not None:
            world.ask(
                "INSERT INTO timeline (alarm_id, at, change, actor_id, actor, channel, alarm)"
                " VALUES (%s, %s, %s, %s, %s, 'station', '{}')",
                alarm, at + timedelta(seconds=seconds), change, int(world.ids[carer]), carer,
            )  # fmt: skip


DAY = datetime(2026, 11, 2, 0, 0, tzinfo=UTC)


def write_two_days(world: World) -> None:
    """Write what the tests below have counted by hand. Local midnight is 16:00 UTC."""

    def at(hours: float) -> datetime:
        return DAY + timedelta(hours=hours)

    happened(world, "anna", at(1), answered=20, arrived=100, outcome="real")
    happened(world, "anna", at(2), answered=60, arrived=200, outcome="false")
    happened(world, "anna", at(3), answered=61, arrived=300, outcome="false")
    happened(world, "anna", at(3.5), answered=180, outcome="unknown")
    happened(world, "anna", at(20))
    happened(world, "anna", at(21), answered=5, outcome="false", class_="technical", priority=1)
    happened(world, "anna", at(22), answered=5, outcome="test")
    happened(world, "anna", at(23), detail='{"selftest": true}')
    happened(world, "bela", at(4), answered=181, outcome="real", carer="nurse-b")


async def report(api: Api, user: str = "admin", **query: Any) -> list[dict[str, Any]]:
    days = {"from": DAY.isoformat(), "to": (DAY + timedelta(days=1)).isoformat()}
    found = done(await api[user].get("/reports/answering", params=days | query))["items"]
    assert isinstance(found, list)
    return found


async def test_the_report_by_station_says_what_was_counted_by_hand(api: Api) -> None:
    write_two_days(api.world)
    a, b = await report(api)
    assert (a["station"], a["place_id"]) == ("A", api.world.ids["A"])
    assert (a["alarms"], a["calls"], a["unanswered"]) == (6, 5, 1)
    assert (a["answered_60_s"], a["answered_180_s"], a["goal_met"]) == (0.4, 0.8, False)
    assert (a["arrival_median_s"], a["arrival_p90_s"]) == (200.0, 280.0)
    assert a["outcomes"] == {"real": 1, "false": 3, "unknown": 1, "open": 1}
    assert a["needed_action"] == 0.2
    assert a["alarms_per_bed_day"] == 6.0
    # 02:00, 03:00 and 03:30 lie within two hours.
    assert (a["burden"], a["burden_line"]) == (3, "below")
    assert (b["station"], b["answered_180_s"], b["needed_action"]) == ("B", 0.0, 1.0)


async def test_the_report_by_day_divides_at_local_midnight(api: Api) -> None:
    write_two_days(api.world)
    first, second = await report(api, place_id=api.world.ids["A"], by="day")
    assert (first["alarms"], second["alarms"]) == (4, 2)
    assert datetime.fromisoformat(second["from"]) == DAY + timedelta(hours=16)
    # Sixteen hours of one bed, then eight.
    assert (first["alarms_per_bed_day"], second["alarms_per_bed_day"]) == (6.0, 6.0)


async def test_the_report_by_shift_follows_the_roster(api: Api) -> None:
    write_two_days(api.world)
    api.world.ask(
        "INSERT INTO shifts (place_id, user_id, post, during)"
        " VALUES (%s, %s, 'first', tstzrange(%s, %s))",
        int(api.world.ids["A"]), int(api.world.ids["nurse"]), DAY, DAY + timedelta(hours=2.5),
    )  # fmt: skip
    shift, rest = await report(api, by="shift", place_id=api.world.ids["A"])
    assert (shift["alarms"], shift["answered_60_s"], shift["goal_met"]) == (2, 1.0, True)
    assert (rest["from"], rest["alarms"], rest["alarms_per_bed_day"]) == (None, 4, None)


async def test_the_burden_of_one_carer_is_the_worst_two_hours(api: Api) -> None:
    for number in range(31):
        at = DAY + timedelta(minutes=4 * number)
        happened(api.world, "anna", at, answered=5, outcome="false", kind=f"k{number}")
    # The thirty-first comes 120 minutes after the first: both still lie in one window.
    (a,) = await report(api)
    assert (a["burden"], a["burden_line"]) == (31, "heavy")


async def test_a_nurse_sees_the_report_of_her_own_place_also_as_csv(api: Api) -> None:
    write_two_days(api.world)
    assert [one["station"] for one in await report(api, "nurse")] == ["A"]
    refused(await api["nurse"].get(f"/reports/answering?place_id={api.world.ids['B']}"), 404)
    refused(await api["family"].get("/reports/answering"), 403)
    refused(await api["nurse"].get("/reports/answering?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z"), 422)  # fmt: skip  # noqa: E501  one route
    days = {"from": DAY.isoformat(), "to": (DAY + timedelta(days=1)).isoformat()}
    answered = await api["nurse"].get(
        "/reports/answering", params=days, headers={"accept": "text/csv"}
    )
    assert answered.headers["content-type"].startswith("text/csv")
    head, row = answered.text.removeprefix("\ufeff").splitlines()
    cells = dict(zip(head.split(","), row.split(","), strict=True))
    assert (cells["station"], cells["answered_60_s"], cells["outcome_false"]) == ("A", "0.4", "3")
