"""ID-card and telephone numbers: sealed in the database, masked in answers, found by equality."""

import argparse
import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from anxin.config import Settings
from anxin.db import people
from anxin.db.pool import Database
from anxin.db.scope import EVERYTHING
from anxin.errors import SettingError
from anxin.keys import add_arguments, ensure_keys, make_keys, read_keys, rotate
from anxin.keys import run as keys_command
from anxin.seal import DataKeys, KeysMissing, KeyUnknown, SealBroken, key_line
from tests.integration.api_world import Api, World, running, settle

CARD = "11010519491231002X"
OTHER_CARD = "110105194912310046"
PHONE = "13812345678"
KEYS = "\n".join(key_line(kind, datetime.now(UTC)) for kind in ("master", "index"))


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn), environ={"data_keys": KEYS}) as serving:
        yield serving


def path(api: Api, rest: str = "identity", whose: str = "anna") -> str:
    return f"/residents/{api.world.ids[whose]}/{rest}"


def everything(world: World) -> str:
    """Return every row of every table as text: what a dump would hold."""
    tables = world.ask(
        "SELECT c.oid::regclass::text AS name FROM pg_class c"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    return "\n".join(
        str(row) for table in tables for row in world.ask(f"SELECT t::text FROM {table['name']} t")
    )


async def test_numbers_are_masked_and_revealed_only_on_purpose(api: Api) -> None:
    body = {"id_card": "110105 19491231 002x", "phone": "+86 138-1234-5678"}
    answer = await api["supervisor"].put(path(api), json=body)
    masked = {"id_card": "110************02X", "phone": "138****5678", "differs": []}
    assert (answer.status_code, answer.json()) == (200, masked)
    assert (await api["nurse"].get(path(api))).json() == masked
    full = await api["supervisor"].post(path(api, "identity/reveal"))
    assert full.json() == {
        "id_card": CARD, "phone": "+8613812345678", "differs": [], "relatives": []
    }  # fmt: skip
    assert full.headers["cache-control"] == "no-store"
    assert (await api["nurse"].post(path(api, "identity/reveal"))).status_code == 403
    for role in ("integrator", "family"):
        assert (await api[role].get(path(api))).status_code == 403
    assert (await api["nurse-b"].get(path(api))).status_code == 404
    stored = everything(api.world)
    assert CARD not in stored
    assert PHONE not in stored
    assert PHONE[-4:].encode().hex() not in stored


async def test_a_number_is_removed_and_the_other_one_stays(api: Api) -> None:
    await api["admin"].put(path(api), json={"id_card": CARD, "phone": PHONE})
    await api["admin"].put(path(api), json={"id_card": None})
    assert (await api["admin"].get(path(api))).json()["phone"] == "138****5678"
    assert (await api["admin"].get(path(api))).json()["id_card"] is None
    assert api.world.one("SELECT id_card_index IS NULL FROM identities") is True


async def test_a_wrong_number_is_refused_and_not_repeated(api: Api) -> None:
    for body in ({"id_card": "110105194912310021"}, {"phone": "12345"}, {"id_card": "x"}):
        answer = await api["admin"].put(path(api), json=body)
        assert answer.status_code == 422
        assert next(iter(body.values())) not in answer.text or body == {"id_card": "x"}
    assert api.world.one("SELECT count(*) FROM identities") == 0


async def test_what_the_card_says_otherwise_is_named(api: Api) -> None:
    world = api.world
    await api["admin"].put(path(api), json={"id_card": CARD})
    world.ask("UPDATE residents SET born = '1949-12-30', sex = 'male' WHERE name = 'anna'")
    assert (await api["admin"].get(path(api))).json()["differs"] == ["born", "sex"]
    world.ask("UPDATE residents SET born = '1949-12-31', sex = 'female' WHERE name = 'anna'")
    assert (await api["admin"].get(path(api))).json()["differs"] == []


async def test_relatives_are_sealed_masked_and_removed(api: Api) -> None:
    body = {"name": "王小明", "relation": "子", "phone": "13900139000", "guardian": True}
    made = await api["supervisor"].post(path(api, "relatives"), json=body)
    assert made.status_code == 201
    seen = made.json()
    assert (seen["name"], seen["phone"], seen["guardian"]) == ("王**", "139****9000", True)
    assert (await api["nurse"].get(path(api, "relatives"))).json()["items"] == [seen]
    full = (await api["admin"].post(path(api, "identity/reveal"))).json()["relatives"]
    assert (full[0]["name"], full[0]["phone"]) == ("王小明", "+8613900139000")
    assert "王小明" not in everything(api.world)
    assert (await api["nurse"].delete(path(api, f"relatives/{seen['id']}"))).status_code == 403
    foreign = path(api, f"relatives/{seen['id']}", "bela")
    assert (await api["admin"].delete(foreign)).status_code == 404
    mine = path(api, f"relatives/{seen['id']}")
    assert (await api["supervisor"].delete(mine)).status_code == 204
    assert (await api["supervisor"].delete(mine)).status_code == 404


async def test_a_whole_number_finds_the_resident_inside_ones_own_scope(api: Api) -> None:
    await api["admin"].put(path(api), json={"id_card": CARD, "phone": PHONE})
    await api["admin"].put(path(api, whose="bela"), json={"id_card": OTHER_CARD, "phone": PHONE})
    relative = {"name": "x", "relation": "子", "phone": PHONE}
    await api["admin"].post(path(api, "relatives"), json=relative)

    async def found(role: str, **body: str) -> list[tuple[str, str]]:
        answer = await api[role].post("/people/search", json=body)
        assert answer.status_code == 200, answer.text
        return [(one["name"], one["whose"]) for one in answer.json()["items"]]

    assert await found("admin", id_card=CARD.lower()) == [("anna", "resident")]
    assert await found("nurse", phone=f"+86 {PHONE}") == [
        ("anna", "relative"), ("anna", "resident")
    ]  # fmt: skip
    assert await found("nurse-b", phone=PHONE) == [("bela", "resident")]
    assert await found("nurse-b", id_card=CARD) == []
    assert await found("admin", phone="13812345679") == []
    assert (await api["family"].post("/people/search", json={"phone": PHONE})).status_code == 403
    for body in ({}, {"phone": PHONE, "id_card": CARD}):
        assert (await api["admin"].post("/people/search", json=body)).status_code == 422


async def test_sealed_values_that_trade_places_do_not_open(api: Api) -> None:
    for whose, phone in (("anna", PHONE), ("bela", "13900139000")):
        await api["admin"].put(path(api, whose=whose), json={"phone": phone, "id_card": CARD})
    swap = (
        "UPDATE identities SET phone = other.phone FROM identities other"
        " WHERE other.resident_id <> identities.resident_id"
    )
    api.world.ask(swap)
    assert (await api["admin"].get(path(api))).status_code == 500
    api.world.ask(swap)
    assert (await api["admin"].get(path(api))).status_code == 200
    api.world.ask("UPDATE identities SET phone = id_card")
    assert (await api["admin"].get(path(api))).status_code == 500
    assert PHONE not in (await api["admin"].get(path(api))).text


@pytest.mark.parametrize("keys", ["", KEYS.replace("master 20", "master 19")])
async def test_without_the_keys_nothing_is_shown_or_stored(dsn: str, keys: str) -> None:
    world = settle(dsn)
    async with running(world, environ={"data_keys": KEYS}) as api:
        await api["admin"].put(path(api), json={"phone": PHONE})
    async with running(world, environ={"data_keys": keys, "data_dir": "/nowhere"}) as api:
        for answer in (
            await api["admin"].get(path(api)),
            await api["admin"].put(path(api), json={"id_card": CARD}),
            await api["admin"].post(path(api, "identity/reveal")),
        ):
            assert answer.status_code == 503
            assert "data keys" in answer.json()["detail"]
    assert world.one("SELECT id_card IS NULL FROM identities") is True


async def test_two_who_store_the_first_number_at_once_share_one_key(api: Api) -> None:
    answers = await asyncio.gather(
        *(api["admin"].put(path(api), json={"phone": f"1380013800{n}"}) for n in range(8))
    )
    assert [answer.status_code for answer in answers] == [200] * 8
    assert (await api["admin"].get(path(api))).status_code == 200


async def test_rotation_goes_on_where_it_was_stopped_and_everything_still_opens(
    dsn: str, data_dir: Path
) -> None:
    world = settle(dsn)
    settings = Settings(database=dsn, data_dir=str(data_dir))
    ensure_keys(settings)
    first = read_keys(settings)
    ensure_keys(settings)
    assert read_keys(settings) == first
    assert (data_dir / "data.keys").stat().st_mode & 0o777 == 0o600
    numbers = {}
    async with Database(dsn, size=1) as database:
        for n in range(250):
            world.resident(f"r{n}", "A")
            id_, phone = int(world.ids[f"r{n}"]), f"+86138{n:08d}"
            numbers[id_] = phone
            await people.set_identity(database, EVERYTHING, first, id_, {"phone": phone})
        make_keys(data_dir / "data.keys")
        both = read_keys(settings)
        assert next(iter(both.masters)) == first.newest_master != both.newest_master
        # Somebody stops it in the middle.
        behind = await people.stale(database, both, after=0, limit=100)
        assert await people.rewrap(database, both, behind) == 100
        last = f"+86138{249:08d}"
        for phone, keys in itertools.product((f"+86138{0:08d}", last), (first, both)):
            found = await people.find(
                database, EVERYTHING, keys, id_card=None, phone=phone, limit=5
            )
            # Whoever still has the old keys only does not find who was indexed anew.
            assert len(found) == (0 if keys is first and phone != last else 1)
        with pytest.raises(SettingError, match="depend"):
            await asyncio.to_thread(
                keys_command, _arguments("drop", "master", first.newest_master), settings
            )
    assert await rotate(settings) == 150
    assert await rotate(settings) == 0
    async with Database(dsn, size=1) as database:
        new = DataKeys(
            {both.newest_master: both.masters[both.newest_master]},
            {both.newest_index: both.indexes[both.newest_index]},
        )
        for id_, phone in numbers.items():
            assert (await people.identity(database, EVERYTHING, new, id_)).phone == phone
            (found_one,) = await people.find(
                database, EVERYTHING, new, id_card=None, phone=phone, limit=5
            )
            assert int(found_one.id) == id_
        with pytest.raises(KeyUnknown):
            await people.identity(database, EVERYTHING, first, next(iter(numbers)))


async def test_a_key_is_dropped_only_when_nobody_depends_on_it(
    dsn: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(database=dsn, data_dir=str(data_dir))
    with pytest.raises(KeysMissing):
        read_keys(settings)
    for arguments in (("new",), ("new", "master")):
        await asyncio.to_thread(keys_command, _arguments(*arguments), settings)
    old, new = read_keys(settings).masters
    with pytest.raises(SettingError, match="in use"):
        await asyncio.to_thread(keys_command, _arguments("drop", "master", new), settings)
    await asyncio.to_thread(keys_command, _arguments("list"), settings)
    assert f"master  {new}" in capsys.readouterr().out
    await asyncio.to_thread(keys_command, _arguments("drop", "master", old), settings)
    assert list(read_keys(settings).masters) == [new]
    assert await asyncio.to_thread(os.listdir, data_dir) == ["data.keys"]


async def test_a_person_whose_key_is_gone_cannot_be_read_from_any_copy(dsn: str) -> None:
    world = settle(dsn)
    keys = DataKeys.parse(KEYS)
    id_ = int(world.ids["anna"])
    async with Database(dsn, size=1) as database:
        await people.set_identity(database, EVERYTHING, keys, id_, {"phone": PHONE})
        world.ask("DELETE FROM person_keys")
        assert (await people.identity(database, EVERYTHING, keys, id_)).phone is None
        await people.set_identity(database, EVERYTHING, keys, id_, {"id_card": CARD})
        with pytest.raises(SealBroken):
            await people.identity(database, EVERYTHING, keys, id_)


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)
