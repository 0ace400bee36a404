"""Whoever guesses passwords is stopped, and keeps nobody out who has logged in there before."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from time import perf_counter

import httpx
import pytest
import pytest_asyncio

from anxin.db.accounts import (
    FREE_PER_ACCOUNT,
    FREE_PER_ADDRESS,
    TooManyGuesses,
    forgive,
    know_device,
    known_mark,
    note_attempt,
)
from anxin.db.pool import Database
from tests.integration.api_world import PASSWORD, Api, World, running, settle
from tests.integration.test_api_routes import done, refused

BEGIN = datetime(2030, 1, 1, 8, tzinfo=UTC)
OURS = b"a browser of the nurse".ljust(32)
LOGIN = {"username": "nurse", "password": PASSWORD}


@pytest_asyncio.fixture
async def world(dsn: str) -> World:
    return settle(dsn)


@pytest_asyncio.fixture
async def door(world: World) -> AsyncIterator[Database]:
    async with Database(world.dsn, role="anxin_door", size=4) as database:
        yield database


@pytest_asyncio.fixture
async def api(world: World) -> AsyncIterator[Api]:
    async with running(world) as serving:
        yield serving


async def guess(door: Database, username: str, address: str, now: datetime) -> timedelta | None:
    """Guess wrongly from an unknown device; return how long to wait if it was refused."""
    try:
        await note_attempt(door, username, address=address, mark=None, now=now)
    except TooManyGuesses as refused_:
        return refused_.retry_after
    return None


async def log_in(door: Database, now: datetime) -> None:
    """Log in rightly as the nurse with her own browser."""
    mark = await known_mark(door, "nurse", OURS, now)
    assert mark == OURS
    attempt = await note_attempt(door, "Nurse", address="192.0.2.1", mark=mark, now=now)
    await forgive(door, attempt)


@pytest.mark.parametrize("username", ["nurse", "nobody of this name"])
async def test_an_account_under_attack_for_three_hours_gives_twenty_guesses_an_hour(
    world: World, door: Database, username: str
) -> None:
    nurse = int(world.ids["nurse"])
    await know_device(door, nurse, old=None, new=OURS, now=BEGIN)
    taken: list[datetime] = []
    for number in range(3 * 360):
        now = BEGIN + timedelta(seconds=10 * number)
        wait = await guess(door, username, f"203.0.113.{number % 250}", now)
        if wait is None:
            taken.append(now)
        else:
            assert timedelta(0) < wait <= timedelta(hours=1)
        if number % 30 == 0:
            await log_in(door, now)
    assert len(taken) == 3 * FREE_PER_ACCOUNT
    for first, later in zip(taken, taken[FREE_PER_ACCOUNT:], strict=False):
        assert later - first >= timedelta(hours=1)


async def test_a_sprayer_is_stopped_by_address_and_many_addresses_by_account(
    world: World, door: Database
) -> None:
    await know_device(door, int(world.ids["nurse"]), old=None, new=OURS, now=BEGIN)
    names = ["nurse", *(f"name-{number}" for number in range(199))]
    allowed = 0
    for number in range(400):
        now = BEGIN + timedelta(seconds=9 * number)
        # A whole /64 is one guesser.
        address = f"2001:db8:0:1::{number + 1:x}"
        allowed += await guess(door, names[number % 200], address, now) is None
        if number % 50 == 0:
            await log_in(door, now)
    assert allowed == FREE_PER_ADDRESS
    by_name: dict[str, int] = {}
    later = BEGIN + timedelta(hours=2)
    for number in range(600):
        now = later + timedelta(seconds=6 * number)
        name = names[number % 10]
        if await guess(door, name, f"203.0.113.{number % 250}", now) is None:
            by_name[name] = by_name.get(name, 0) + 1
    assert max(by_name.values()) == FREE_PER_ACCOUNT
    await log_in(door, later + timedelta(minutes=59))


async def test_guesses_made_at_once_count_one_another(door: Database) -> None:
    tries = [guess(door, "nurse", f"203.0.113.{number}", BEGIN) for number in range(60)]
    answers = await asyncio.gather(*tries)
    assert answers.count(None) == FREE_PER_ACCOUNT


async def test_a_known_device_has_a_budget_too_which_success_renews(
    world: World, door: Database
) -> None:
    await know_device(door, int(world.ids["nurse"]), old=None, new=OURS, now=BEGIN)
    for _ in range(FREE_PER_ACCOUNT - 1):
        await note_attempt(door, "nurse", address="192.0.2.1", mark=OURS, now=BEGIN)
    await log_in(door, BEGIN)
    for _ in range(FREE_PER_ACCOUNT):
        await note_attempt(door, "nurse", address="192.0.2.1", mark=OURS, now=BEGIN)
    with pytest.raises(TooManyGuesses):
        await note_attempt(door, "nurse", address="192.0.2.1", mark=OURS, now=BEGIN)
    assert await guess(door, "nurse", "192.0.2.1", BEGIN) is None


async def test_a_device_is_known_to_who_has_used_it_and_for_as_long_as_a_cookie_lives(
    world: World, door: Database
) -> None:
    nurse, other = int(world.ids["nurse"]), int(world.ids["supervisor"])
    await know_device(door, nurse, old=None, new=OURS, now=BEGIN)
    assert await known_mark(door, "NURSE", OURS, BEGIN + timedelta(days=399)) == OURS
    assert await known_mark(door, "nurse", OURS, BEGIN + timedelta(days=401)) is None
    assert await known_mark(door, "supervisor", OURS, BEGIN) is None
    # Another user of the same browser; the mark changes for both.
    new = b"its next mark".ljust(32)
    await know_device(door, other, old=OURS, new=new, now=BEGIN)
    for name in ("nurse", "supervisor"):
        assert await known_mark(door, name, OURS, BEGIN) is None
        assert await known_mark(door, name, new, BEGIN) == new
    for number in range(60):
        mark = str(number).encode().ljust(32)
        await know_device(door, nurse, old=None, new=mark, now=BEGIN + timedelta(days=number))
    assert world.one("SELECT count(*) FROM known_devices WHERE user_id = %s", nurse) == 50


def fill(api: Api, username: str, address: str = "203.0.113.9") -> None:
    api.world.ask(
        "INSERT INTO login_attempts (username, address, at)"
        " SELECT %s, %s, now() - interval '10 minutes' FROM generate_series(1, 20)",
        username,
        address,
    )


async def test_the_right_password_is_refused_from_elsewhere_and_taken_on_a_known_device(
    api: Api,
) -> None:
    async with httpx.AsyncClient(
        base_url=f"{api.address}/api/v1", timeout=20, trust_env=False
    ) as browser:
        answer = await browser.post("/auth/login", json=LOGIN)
        assert answer.status_code == 200
        (cookie,) = [
            one for one in answer.headers.get_list("set-cookie") if one.startswith("anxin_device=")
        ]
        for word in ("HttpOnly", "Path=/api/v1/auth", "SameSite=strict", "Max-Age=34560000"):
            assert word in cookie
        fill(api, "nurse")
        fill(api, "nobody at all")
        told = []
        for name, password in (
            ("nurse", PASSWORD), ("Nurse", "wrong"), ("nobody at all", PASSWORD),
        ):  # fmt: skip
            async with httpx.AsyncClient(base_url=browser.base_url, trust_env=False) as stranger:
                login = {"username": name, "password": password}
                said = await stranger.post("/auth/login", json=login)
                assert 2900 <= int(said.headers["retry-after"]) <= 3000
                told.append(refused(said, 429))
        assert told[0] == told[1] == told[2]
        first = browser.cookies["anxin_device"]
        done(await browser.post("/auth/login", json=LOGIN))
        assert browser.cookies["anxin_device"] != first
        done(await browser.post("/auth/login", json=LOGIN))
    stolen = {"cookie": f"anxin_device={first}"}
    refused(await api["nobody"].post("/auth/login", json=LOGIN, headers=stolen), 429)


async def test_right_logins_leave_no_failures_behind(api: Api) -> None:
    for _ in range(3):
        done(await api["nobody"].post("/auth/login", json=LOGIN))
    wrong = LOGIN | {"password": "wrong"}
    refused(await api["nobody"].post("/auth/login", json=wrong), 401)
    assert api.world.one("SELECT count(*) FROM login_attempts") == 1


async def test_a_session_that_was_stolen_gives_twenty_guesses_at_its_password(api: Api) -> None:
    for _ in range(FREE_PER_ACCOUNT):
        refused(await api["nurse"].post("/auth/step-up", json={"password": "wrong"}), 403)
    right = {"password": PASSWORD}
    refused(await api["nurse"].post("/auth/step-up", json=right), 429)
    # The user is not shut out by it.
    done(await api["nobody"].post("/auth/login", json=LOGIN))


async def test_a_wrong_password_takes_as_long_for_a_name_that_there_is_not(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    times: dict[str, list[float]] = {"nurse": [], "nobody at all": []}
    for number in range(2 * (FREE_PER_ACCOUNT - 1)):
        name = ("nurse", "nobody at all")[number % 2]
        login = {"username": name, "password": "wrong"}
        began = perf_counter()
        refused(await api["nobody"].post("/auth/login", json=login), 401)
        times[name].append((perf_counter() - began) * 1000)
    known, unknown = (statistics.median(one) for one in times.values())
    with capsys.disabled():
        print(f"\nwrong password: known {known:.1f} ms, unknown {unknown:.1f} ms")
    assert abs(known - unknown) < max(20.0, 0.5 * known)
