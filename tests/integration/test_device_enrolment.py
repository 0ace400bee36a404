"""Enrolment: a code made by staff, shown once, good once; what the device gets really opens."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from httpx import Response

from anxin.bucket import Buckets
from anxin.config import Address, Settings
from anxin.enrolment import new_code
from api import enrolments
from ingest.listener import Listener
from ingest.service import IngestService
from tests.integration.api_world import Api, running, settle
from tests.integration.recording_gate import RawClient


@pytest_asyncio.fixture
async def api(dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr(enrolments, "ATTEMPTS", Buckets(rate=1, burst=100))
    async with running(settle(dsn)) as serving:
        yield serving


async def made(api: Api, who: str = "admin", **body: str) -> dict[str, str]:
    """Make an enrolment and return the answer."""
    answer = await api[who].post("/enrolments", json={"kind": "bed_sensor", **body})
    assert answer.status_code == 201, answer.text
    shown: dict[str, str] = answer.json()
    return shown


async def shown(api: Api, code: str, **more: str) -> Response:
    """Show a code as a device does: without a session."""
    return await api["nobody"].post("/enrol", json={"code": code, **more})


async def test_a_code_makes_one_device_of_a_resident_whose_secret_opens(api: Api, dsn: str) -> None:
    ids = api.world.ids
    code = await made(api, place_id=ids["A"], resident_id=ids["anna"], name="bed 3")
    typed = code["code"].lower().replace("-", " ").replace("0", "o").replace("1", "l")
    answer = await shown(api, typed)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    given = answer.json()
    assert given["mqtt"].startswith("mqtt://127.0.0.1:")
    device = (await api["admin"].get(f"/devices/{given['id']}")).json()
    assert (device["kind"], device["name"]) == ("bed_sensor", "bed 3")
    assert (device["place_id"], device["resident_id"]) == (ids["A"], ids["anna"])
    async with (
        IngestService(Settings(database=dsn, spool_mebibytes=0)) as service,
        Listener(service, Address("127.0.0.1", 0), stop_within_s=2) as listener,
    ):
        client = await RawClient.enter(
            listener.port, user=given["id"], password=given["secret"].encode()
        )
        client.abort()
    again = await shown(api, code["code"])
    assert again.status_code == 404
    (kept,) = (await api["admin"].get("/enrolments")).json()["items"]
    assert (kept["device_id"], kept["used_at"] is not None) == (given["id"], True)
    assert "code" not in kept


async def test_used_withdrawn_late_unknown_and_orphaned_codes_are_the_same_404(api: Api) -> None:
    withdrawn, late, orphaned = [await made(api) for _ in range(3)]
    gone = await api["admin"].delete(f"/enrolments/{withdrawn['id']}")
    assert gone.status_code == 204
    api.world.ask(
        "UPDATE enrolments SET expires_at = now() - interval '1 second' WHERE id = %s",
        int(late["id"]),
    )
    api.world.ask(
        "UPDATE enrolments SET created_by = (SELECT id FROM users WHERE username = 'nurse')"
        " WHERE id = %s",
        int(orphaned["id"]),
    )
    api.world.ask("UPDATE users SET disabled_at = now() WHERE username = 'nurse'")
    told = {
        ((answer := await shown(api, code)).status_code, answer.text)
        for code in (withdrawn["code"], late["code"], orphaned["code"], new_code())
    }
    assert len(told) == 1
    assert told.pop()[0] == 404
    assert api.world.one("SELECT count(*) FROM devices") == 0


async def test_a_typing_error_says_so_and_a_taken_id_leaves_the_code_good(api: Api) -> None:
    code = (await made(api))["code"]
    wrong = code[:-1] + ("A" if code[-1] != "A" else "B")
    assert (await shown(api, wrong)).status_code == 422
    api.world.device("taken", "A")
    assert (await shown(api, code, id="taken")).status_code == 409
    assert (await shown(api, code, id="serial-77")).json()["id"] == "serial-77"


async def test_guessing_is_slowed_by_address(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolments, "ATTEMPTS", Buckets(rate=0.001, burst=3))
    codes = [(await shown(api, new_code())).status_code for _ in range(6)]
    assert codes == [404, 404, 404, 404, 429, 429]


async def test_codes_are_made_and_seen_within_one_s_own_place(api: Api) -> None:
    ids = api.world.ids
    theirs = await made(api, place_id=ids["B"])
    own = await made(api, "supervisor", place_id=ids["A"])
    seen = (await api["supervisor"].get("/enrolments")).json()["items"]
    assert [one["id"] for one in seen] == [own["id"]]
    assert (await api["supervisor"].delete(f"/enrolments/{theirs['id']}")).status_code == 404
    for body in ({"place_id": ids["B"]}, {"place_id": ids["A"], "resident_id": ids["bela"]}):
        refused = await api["supervisor"].post("/enrolments", json={"kind": "door", **body})
        assert refused.status_code == 404
    for who, status in (("nurse", 403), ("family", 403), ("nobody", 401)):
        answer = await api[who].post("/enrolments", json={"kind": "door", "place_id": ids["A"]})
        assert answer.status_code == status


async def test_a_label_carries_the_code_as_text_and_as_a_picture(api: Api) -> None:
    code = await made(api)
    plain = code["code"].replace("-", "")
    assert code["label"].startswith("anxin:enrol?at=http%3A%2F%2F127.0.0.1")
    assert code["label"].endswith(f"%2Fapi%2Fv1%2Fenrol&code={plain}")
    assert code["svg"].startswith("<svg xmlns=")
    assert api.world.one("SELECT count(*) FROM enrolments WHERE code_hash = sha256(%s)",
                         plain.encode()) == 1  # fmt: skip


async def test_devices_say_how_they_are_and_secrets_can_overlap(api: Api) -> None:
    world = api.world
    key = world.device("gate", "A")
    world.ask("UPDATE devices SET kind = 'gateway' WHERE key = %s", key)
    child = world.device("child", "A", "anna")
    await api["admin"].patch("/devices/child", json={"gateway_id": "gate"})
    world.ask(
        "INSERT INTO device_states (device_key, firmware, network, tls) VALUES (%s, '1', 'private',"
        " 'TLSv1.3')",
        child,
    )
    world.ask(
        "INSERT INTO quarantine (received_at, device_id, kind, reason, size, payload)"
        " SELECT now(), 'child', 'state', 'x', 1, 'x' FROM generate_series(1, 130)"
    )
    behind = (await api["supervisor"].get("/devices", params={"gateway_id": "gate"})).json()
    (device,) = behind["items"]
    assert (device["id"], device["network"], device["tls"]) == ("child", "private", "TLSv1.3")
    assert (device["quarantined"], device["overlap_until"]) == (100, None)
    renewed = await api["supervisor"].post("/devices/child/secret", json={"overlap_seconds": 600})
    assert renewed.status_code == 200, renewed.text
    device = (await api["supervisor"].get("/devices/child")).json()
    assert device["overlap_until"] is not None
    too_long = {"overlap_seconds": 8 * 86_400}
    assert (await api["admin"].post("/devices/child/secret", json=too_long)).status_code == 422
    assert (await api["admin"].post("/devices/child/secret")).status_code == 200
    device = (await api["supervisor"].get("/devices/child")).json()
    assert device["overlap_until"] is None
