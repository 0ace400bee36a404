"""Second factors, one-time passwords and sessions, over HTTP as clients use them."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from anxin.config import Settings
from anxin.db import accounts
from anxin.db.pool import Database
from anxin.errors import SettingError
from anxin.keys import key_line, rotate
from anxin.seal import DataKeys
from anxin.totp import code_of, step_at
from api.app import create_app
from tests.integration.api_world import PASSWORD, Api, running, settle
from tests.integration.test_api_routes import done, refused

KEYS = "\n".join(key_line(kind, datetime.now(UTC)) for kind in ("master", "index"))
NEW = "lilac tandem 40"


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    environ = {"data_keys": KEYS, "require_totp": "supervisor, integrator"}
    async with running(settle(dsn), environ=environ) as serving:
        yield serving


async def log_in(api: Api, username: str, password: str = PASSWORD, **more: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"{api.address}/api/v1", trust_env=False) as client:
        body = {"username": username, "password": password, **more}
        return await client.post("/auth/login", json=body)


def become(api: Api, who: str, answer: dict[str, Any]) -> None:
    """Let the client of somebody go on with the token of an answer."""
    api[who].headers["authorization"] = f"Bearer {answer['access_token']}"


class Telephone:
    """An authenticator that shows the codes of a secret, never one twice."""

    def __init__(self, uri: str) -> None:
        """Scan what an enrolment shows."""
        found = re.search("secret=([A-Z2-7]+)", uri)
        assert found is not None
        text = found[1]
        bits = "".join(f"{'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.index(one):05b}" for one in text)
        self.secret = int(bits, 2).to_bytes(20, "big")
        self.last = 0

    def code(self) -> str:
        """Return the next code, at first that of the step before this one, if it lasts."""
        soon = datetime.now(UTC) + timedelta(seconds=3)
        self.last = max(self.last + 1, step_at(soon) - 1)
        return code_of(self.secret, self.last)


async def enrol(api: Api, who: str) -> tuple[Telephone, list[str]]:
    begun = done(await api[who].post("/me/totp"), 201)
    assert begun["qr"].startswith("<svg")
    telephone = Telephone(begun["uri"])
    held = done(await api[who].post("/me/totp/confirm", json={"code": telephone.code()}))
    become(api, who, held)
    return telephone, held["recovery_codes"]


async def test_a_second_factor_holds_once_it_is_confirmed_and_is_asked_for_at_each_login(
    api: Api,
) -> None:
    begun = done(await api["nurse"].post("/me/totp"), 201)
    done(await log_in(api, "nurse"))  # not yet
    refused(await api["nurse"].post("/me/totp/confirm", json={"code": "000000"}), 422)
    telephone = Telephone(begun["uri"])
    held = done(await api["nurse"].post("/me/totp/confirm", json={"code": telephone.code()}))
    refused(await api["nurse"].get("/me"), 401)  # the token from before is void
    become(api, "nurse", held)
    assert done(await api["nurse"].get("/me"))["second_factor"] is True
    refused(await api["nurse"].post("/me/totp"), 409)

    missing = refused(await log_in(api, "nurse"), 401)
    assert missing["type"] == "second-factor"
    assert "totp" in missing["detail"]
    wrong = refused(await log_in(api, "nurse", totp="000000"), 401)
    assert wrong["type"] == "second-factor"
    # Who does not know the password is not told of a second factor.
    code = telephone.code()
    stranger = refused(await log_in(api, "nurse", "wrong", totp=code), 401)
    assert stranger["type"] == "about:blank"
    done(await log_in(api, "nurse", totp=f"{code[:3]} {code[3:]}"))
    refused(await log_in(api, "nurse", totp=code), 401)
    assert api.world.one("SELECT count(*) FROM login_attempts WHERE username = 'nurse'") == 4


async def test_a_recovery_code_stands_for_a_code_once(api: Api) -> None:
    _, codes = await enrol(api, "nurse")
    assert len(codes) == 10
    done(await log_in(api, "nurse", totp=codes[0].upper()))
    refused(await log_in(api, "nurse", totp=codes[0]), 401)
    done(await log_in(api, "nurse", totp=codes[1]))
    stored = api.world.ask("SELECT code_hash FROM recovery_codes")
    assert len(stored) == 10
    assert not any(code.encode() in bytes(one["code_hash"]) for code in codes for one in stored)


async def test_of_many_who_show_one_code_at_once_one_is_let_in(api: Api) -> None:
    telephone, codes = await enrol(api, "nurse")
    nurse, keys, now = int(api.world.ids["nurse"]), DataKeys.parse(KEYS), datetime.now(UTC)
    async with Database(api.world.dsn, role="anxin_door", size=8) as door:
        for code in (telephone.code(), codes[0]):
            tries = (accounts.take_code(door, keys, nurse, code, now) for _ in range(8))
            assert sorted(await asyncio.gather(*tries)) == [False] * 7 + [True]


async def test_the_secret_is_sealed_bound_to_its_user_and_covered_by_rotation(api: Api) -> None:
    telephone, _ = await enrol(api, "nurse")
    await enrol(api, "family")
    rows = api.world.ask("SELECT * FROM second_factors ORDER BY user_id")
    assert not any(telephone.secret in bytes(one["secret"]) for one in rows)
    keys = DataKeys.parse(KEYS)
    newer = f"{KEYS}\n{key_line('master', datetime.now(UTC), keys.masters)}"
    settings = Settings(database=api.world.dsn, data_keys=newer)
    assert await rotate(settings) == 2
    after = api.world.ask("SELECT * FROM second_factors ORDER BY user_id")
    assert {one["master_id"] for one in after} == {DataKeys.parse(newer).newest_master}
    assert await rotate(settings) == 0
    newest = DataKeys.parse("\n".join(newer.splitlines()[1:]))  # the old master key is gone
    now = datetime.now(UTC)
    nurse, family = (int(api.world.ids[name]) for name in ("nurse", "family"))
    async with Database(api.world.dsn, role="anxin_door", size=1) as door:
        assert await accounts.take_code(door, newest, nurse, telephone.code(), now)
        api.world.ask(
            "UPDATE second_factors SET secret = (SELECT secret FROM second_factors"
            " WHERE user_id = %s), last_step = 0 WHERE user_id = %s",
            nurse,
            family,
        )
        with pytest.raises(Exception, match="does not open"):
            await accounts.take_code(door, newest, family, telephone.code(), now)


async def test_a_role_that_needs_a_second_factor_may_do_nothing_else_before(api: Api) -> None:
    answer = done(await log_in(api, "supervisor"))
    assert answer["limited"] == "second-factor"
    become(api, "supervisor", answer)
    for method, path in (
        ("GET", "/residents"), ("GET", "/alarms"), ("POST", "/stream/tickets"),
        ("GET", "/me/sessions"), ("POST", "/users"), ("GET", "/channels"),
    ):  # fmt: skip
        said = refused(await api["supervisor"].request(method, path), 403)
        assert said["type"] == "second-factor-needed", path
    assert done(await api["supervisor"].get("/me"))["limited"] == "second-factor"
    telephone, _ = await enrol(api, "supervisor")
    assert done(await api["supervisor"].get("/me"))["limited"] is None
    done(await api["supervisor"].get("/residents"))
    answer = done(await log_in(api, "supervisor", totp=telephone.code()))
    assert answer["limited"] is None
    # Without it the way is back to where it began, for every session.
    done(await api["supervisor"].delete("/me/totp"), 204)
    said = refused(await api["supervisor"].get("/residents"), 403)
    assert said["type"] == "second-factor-needed"
    assert done(await log_in(api, "nurse"))["limited"] is None


def test_a_role_that_there_is_not_is_told_at_the_start() -> None:
    with pytest.raises(SettingError, match="ANXIN_REQUIRE_TOTP: 'boss' is no role"):
        create_app(Settings(database="unused", require_totp="admin,boss"))


async def test_an_administrator_takes_a_lost_second_factor_off(api: Api) -> None:
    await enrol(api, "nurse")
    path = f"/users/{api.world.ids['nurse']}/totp"
    refused(await api["supervisor"].delete(path), 404)  # manages relatives only
    done(await api["admin"].delete(path), 204)
    refused(await api["admin"].delete(path), 404)
    refused(await api["nurse"].get("/me"), 401)
    done(await log_in(api, "nurse"))


async def test_a_one_time_password_is_good_for_choosing_another_and_nothing_else(
    api: Api,
) -> None:
    nurse = int(api.world.ids["nurse"])
    reset = done(await api["admin"].post(f"/users/{nurse}/password"))
    refused(await api["nurse"].get("/me"), 401)
    refused(await log_in(api, "nurse"), 401)
    answer = done(await log_in(api, "nurse", reset["password"]))
    assert answer["limited"] == "password"
    become(api, "nurse", answer)
    for method, path in (("GET", "/residents"), ("POST", "/me/totp"), ("GET", "/me/sessions")):
        said = refused(await api["nurse"].request(method, path), 403)
        assert said["type"] == "password-change-needed", path
    change = {"password": reset["password"], "new": NEW}
    again = change | {"new": reset["password"]}
    refused(await api["nurse"].post("/me/password", json=again), 422)
    become(api, "nurse", done(await api["nurse"].post("/me/password", json=change)))
    done(await api["nurse"].get("/residents"))
    assert done(await log_in(api, "nurse", NEW))["limited"] is None
    late = done(await api["admin"].post(f"/users/{nurse}/password"))["password"]
    api.world.ask("UPDATE users SET password_expires_at = now() WHERE id = %s", nurse)
    assert "run out" in refused(await log_in(api, "nurse", late), 401)["detail"]


async def test_a_new_password_ends_every_other_session_and_gives_this_one_a_new_token(
    api: Api,
) -> None:
    other = done(await log_in(api, "nurse"))["access_token"]
    for new, why in (
        ("too short", "10"), ("nurse-of-the-ward", "user name"), ("Password123!", "first"),
        (PASSWORD, "old"),
    ):  # fmt: skip
        body = {"password": PASSWORD, "new": new}
        assert why in refused(await api["nurse"].post("/me/password", json=body), 422)["detail"]
    wrong = {"password": "wrong", "new": NEW}
    assert refused(await api["nurse"].post("/me/password", json=wrong), 403)["type"] == "step-up"
    body = {"password": PASSWORD, "new": NEW}
    answer = done(await api["nurse"].post("/me/password", json=body))
    refused(await api["nurse"].get("/me"), 401)
    refused(await api["nobody"].get("/me", headers={"authorization": f"Bearer {other}"}), 401)
    become(api, "nurse", answer)
    done(await api["nurse"].get("/me"))
    refused(await log_in(api, "nurse"), 401)
    done(await log_in(api, "nurse", NEW))


async def test_a_hash_that_is_weaker_than_usual_is_made_anew_at_login(api: Api) -> None:
    weak = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8192),)).hash(PASSWORD)
    nurse = int(api.world.ids["nurse"])
    api.world.ask("UPDATE users SET password_hash = %s WHERE id = %s", weak, nurse)
    done(await log_in(api, "nurse"))
    stored = api.world.one("SELECT password_hash FROM users WHERE id = %s", nurse)
    assert stored != weak
    done(await log_in(api, "nurse"))
    assert api.world.one("SELECT password_hash FROM users WHERE id = %s", nurse) == stored


async def test_a_program_may_give_a_password_of_eight_characters(api: Api) -> None:
    user = {"username": "theirs", "password": "12345678", "role": "family"}
    done(await api["admin"].post("/users", json=user), 201)
    assert done(await log_in(api, "theirs", "12345678"))["limited"] is None
    refused(await api["admin"].post("/users", json=user | {"password": "1234567"}), 422)


async def test_step_up_asks_for_the_code_and_gives_a_new_token_while_streams_go_on(
    api: Api,
) -> None:
    telephone, _ = await enrol(api, "nurse")
    async with api.stream("nurse") as stream:
        await stream.next("ready")
        missing = await api["nurse"].post("/auth/step-up", json={"password": PASSWORD})
        assert refused(missing, 403)["type"] == "second-factor"
        shown = {"password": PASSWORD, "totp": telephone.code()}
        answer = done(await api["nurse"].post("/auth/step-up", json=shown))
        refused(await api["nurse"].get("/me"), 401)
        become(api, "nurse", answer)
        ticket = done(await api["nurse"].post("/stream/tickets"), 201)["ticket"]
        code = telephone.code()
        again = {"password": PASSWORD, "totp": code}
        become(api, "nurse", done(await api["nurse"].post("/auth/step-up", json=again)))
        api.world.alarm("anna")
        await stream.alarms(1)
        async with api.socket() as socket:
            await socket.send(f'{{"type":"hello","ticket":"{ticket}","cursor":null}}')
            assert '"ready"' in str(await socket.recv())


async def test_a_session_without_a_password_steps_up_with_a_code_alone(api: Api) -> None:
    telephone, _ = await enrol(api, "nurse")
    alone = {"totp": telephone.code()}
    refused(await api["nurse"].post("/auth/step-up", json=alone), 403)
    api.world.ask("UPDATE sessions SET method = 'oidc'")
    refused(await api["nurse"].post("/auth/step-up", json={"totp": "000000"}), 403)
    done(await api["nurse"].post("/auth/step-up", json=alone))
    refused(await api["family"].post("/auth/step-up", json={"totp": "000000"}), 403)


@pytest.mark.parametrize("change", ["role = 'supervisor'", "place_id = NULL"])
async def test_another_role_or_place_ends_the_sessions(api: Api, change: str) -> None:
    done(await api["nurse"].get("/me"))
    api.world.ask(f"UPDATE users SET {change} WHERE username = 'nurse'")
    refused(await api["nurse"].get("/me"), 401)


async def test_sessions_of_people_one_manages_are_listed_and_ended(api: Api) -> None:
    api.world.user("kin", "family", "A")
    api.world.user("kin-b", "family", "B")
    ids = api.world.ids
    for who, whom in (
        ("supervisor", "kin-b"), ("supervisor", "nurse"), ("supervisor", "admin"),
    ):  # fmt: skip
        refused(await api[who].get(f"/users/{ids[whom]}/sessions"), 404)
        refused(await api[who].delete(f"/users/{ids[whom]}/sessions"), 404)
    refused(await api["nurse"].get(f"/users/{ids['kin']}/sessions"), 403)
    async with api.stream("kin") as stream:
        await stream.next("ready")
        (listed,) = done(await api["supervisor"].get(f"/users/{ids['kin']}/sessions"))["items"]
        assert listed["current"] is False
        done(await api["supervisor"].delete(f"/users/{ids['kin']}/sessions"), 204)
        refused(await api["kin"].get("/me"), 401)
        await stream.socket.wait_closed()
    done(await api["nurse"].get("/me"))
