"""What the API tells of risk: scores with their bounds, observations, and who may let a model."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.api_world import PASSWORD, Api, running, settle

SCORED = (
    "INSERT INTO risk (resident_id, at, data_at, score, possible_max, complete, band, priority,"
    " model, explanation) SELECT id, now(), now(), 4, 9, false, 'low', 0, 'news2',"
    ' \'{"missing": ["temp"], "sentence": {"zh": "呼吸 26", "en": "breathing 26"}}\''
    " FROM residents"
)


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn)) as serving:
        yield serving


def path(api: Api, name: str, what: str) -> str:
    return f"/residents/{api.world.ids[name]}/{what}"


async def test_a_score_comes_with_its_bounds_its_sentence_and_what_is_missing(api: Api) -> None:
    empty = (await api["nurse"].get(path(api, "anna", "risk"))).json()
    assert (empty["score"], empty["sentence"], empty["stale"]) == (None, None, True)
    api.world.ask(SCORED)
    seen = (await api["nurse"].get(path(api, "anna", "risk"))).json()
    assert (seen["possible_min"], seen["possible_max"], seen["complete"]) == (4, 9, False)
    assert seen["sentence"] == {"zh": "呼吸 26", "en": "breathing 26"}
    assert seen["explanation"]["missing"] == ["temp"]
    assert seen["modes"]["news2"] == "alarming"
    assert seen["modes"]["deterioration"] == "shadow"
    api.world.ask("UPDATE risk SET data_at = now() - interval '16 minutes'")
    assert (await api["nurse"].get(path(api, "anna", "risk"))).json()["stale"] is True


async def test_a_relative_sees_the_sentence_with_consent_to_values_only(api: Api) -> None:
    api.world.ask(SCORED)
    seen = (await api["family"].get(path(api, "anna", "risk"))).json()
    assert seen["sentence"]["zh"] == "呼吸 26"
    assert seen["modes"] == {}, "how a house runs its models is the staff's"
    api.world.link("family", "anna", "status")
    assert (await api["family"].get(path(api, "anna", "risk"))).status_code == 404


async def test_history_goes_back_page_by_page(api: Api) -> None:
    api.world.ask(
        "INSERT INTO risk_history (resident_id, at, score, possible_max, complete, band, priority,"
        " model) SELECT r.id, now() - n * interval '1 hour', n, 20, false, 'low', 0, 'm'"
        " FROM residents r, generate_series(1, 9) AS n"
    )
    seen: list[int] = []
    query: dict[str, Any] = {"limit": 4}
    while True:
        page = (await api["nurse"].get(path(api, "anna", "risk/history"), params=query)).json()
        seen += [line["score"] for line in page["items"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert seen == list(range(1, 10))


async def test_an_observation_stays_and_is_corrected_by_a_new_one_once(api: Api) -> None:
    where = path(api, "anna", "observations")
    first = await api["nurse"].post(where, json={"consciousness": "C", "oxygen": True, "hr": 88})
    assert first.status_code == 201, first.text
    made = first.json()
    assert (made["by"], made["consciousness"], made["hr"]) == ("nurse", "C", 88)
    correction = {"corrects": made["id"], "consciousness": "A", "oxygen": False}
    second = await api["nurse"].post(where, json=correction)
    assert second.status_code == 201
    assert (await api["nurse"].post(where, json=correction)).status_code == 409
    listed = (await api["nurse"].get(where)).json()["items"]
    assert [one["corrected_by"] for one in listed] == [None, second.json()["id"]]
    taken_back = {"corrects": second.json()["id"], "withdrawn": True}
    assert (await api["nurse"].post(where, json=taken_back)).status_code == 201
    # Not of somebody else's line.
    of_another = await api["admin"].post(path(api, "bela", "observations"), json=correction)
    assert of_another.status_code == 409


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "at least one thing"),
        ({"temp": 370}, "temperature lies between 20 and 45 °C"),
        ({"hr": -1}, "heart rate lies between 0 and 300 /min"),
        ({"sbp": 80, "dbp": 120}, "lower than systolic"),
        ({"consciousness": "X"}, "'A', 'C', 'V', 'P' or 'U'"),
        ({"oxygen": "yes"}, "boolean"),
        ({"hr": 70, "at": "2020-01-01T00:00:00Z"}, "within the last 24 hours"),
        ({"hr": 70, "at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, "last 24 hours"),
        ({"withdrawn": True}, "names the line that it takes back"),
    ],
)
async def test_what_cannot_be_meant_is_refused_in_plain_words(
    api: Api, body: dict[str, Any], says: str
) -> None:
    answer = await api["nurse"].post(path(api, "anna", "observations"), json=body)
    assert answer.status_code == 422
    assert says in answer.text


async def test_an_observation_cannot_be_changed_in_the_database_either(api: Api) -> None:
    await api["nurse"].post(path(api, "anna", "observations"), json={"hr": 88})
    with pytest.raises(Exception, match="stays as it was written"):
        api.world.ask("UPDATE observations SET hr = 60")
    api.world.ask("DELETE FROM timeline")
    api.world.ask("DELETE FROM users WHERE username = 'nurse'")
    assert api.world.one("SELECT by_id FROM observations") is None


async def test_a_mode_is_set_by_who_leads_the_place_after_the_password(api: Api) -> None:
    mode = {"mode": "alarming", "place_id": api.world.ids["A"], "why": "two weeks in the shadow"}
    where = "/models/deterioration/mode"
    assert (await api["nurse"].put(where, json=mode)).status_code == 403
    api.world.ask("UPDATE sessions SET confirmed_at = now() - interval '1 hour'")
    stale = await api["supervisor"].put(where, json=mode)
    assert (stale.status_code, stale.json()["type"]) == (403, "step-up")
    await api["supervisor"].post("/auth/step-up", json={"password": PASSWORD})
    for name in ("supervisor", "admin"):
        api.world.log_in(name)
        api[name].headers["authorization"] = f"Bearer {api.world.tokens[name]}"
    assert (await api["supervisor"].put(where, json=mode)).status_code == 200
    assert (await api["supervisor"].put(where, json=mode | {"place_id": None})).status_code == 403
    foreign = mode | {"place_id": api.world.ids["B"]}
    assert (await api["supervisor"].put(where, json=foreign)).status_code == 404
    assert (await api["admin"].put(where, json=mode | {"place_id": None})).status_code == 200
    api.world.ask(SCORED)
    seen = (await api["nurse"].get(path(api, "anna", "risk"))).json()
    assert seen["modes"]["deterioration"] == "alarming"
    (model,) = [
        one for one in (await api["nurse"].get("/models")).json()["items"]
        if one["model"] == "deterioration"
    ]  # fmt: skip
    assert {(one["place_id"], one["mode"]) for one in model["modes"]} == {
        (None, "alarming"), (api.world.ids["A"], "alarming")}  # fmt: skip


async def test_models_tell_how_often_they_alarm_at_each_station(api: Api) -> None:
    api.world.alarm("anna", "early_warning", "physiological", 2)
    api.world.ask("UPDATE alarms SET handling = 'closed', outcome = 'false', closed_at = now()")
    api.world.alarm("anna", "early_warning", "physiological", 2)
    items = (await api["nurse"].get("/models")).json()["items"]
    assert [one["model"] for one in items] == ["news2", "deterioration", "novelty", "rhythm"]
    assert items[0]["stations"] == [
        {"place_id": api.world.ids["A"], "residents": 1, "alarms": 2, "real": 0, "false": 1,
         "predicted": None, "planned": None, "achieved": 0.2857}]  # fmt: skip
    assert items[1]["stations"][0]["alarms"] == 0


async def test_models_tell_what_they_would_alarm_and_what_their_budget_lets_them(api: Api) -> None:
    state = {
        "budget": 0.1, "drift": {"psi": 0.02, "drifted": False},
        "stations": {api.world.ids["A"]: {"predicted": 0.4, "planned": 0.1, "least": 0.7}},
    }  # fmt: skip
    api.world.ask(
        "INSERT INTO model_states (model, version, at, fault, state)"
        " VALUES ('deterioration', '7', now(), 'test', %s)", json.dumps(state))  # fmt: skip
    model = (await api["nurse"].get("/models")).json()["items"][1]
    assert (model["version"], model["fault"], model["budget"]) == ("7", "test", 0.1)
    assert model["drift"]["psi"] == 0.02
    (station,) = model["stations"]
    assert (station["predicted"], station["planned"], station["achieved"]) == (0.4, 0.1, 0.0)
