"""The audit in a real database: written with what it tells of, chained, sealed, and verified."""

import asyncio
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from psycopg import errors

from anxin.audit import Check, Fault, Sealed, Signer
from anxin.backup import back_up
from anxin.config import Settings
from anxin.db import audit
from anxin.db.audit import ChainBroken, Chainer, Noted
from anxin.db.pool import Database
from anxin.restore import restore_database
from models.audit import AuditKeeper, Metrics

OURS = Signer(bytes(range(32)))
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


def noted(number: int) -> Noted:
    return Noted(user_id=number, role="nurse", path="/1/", action="read", object="status",
                 residents=(number,), status=200)  # fmt: skip


async def filled(dsn: str, count: int = 40, at_once: int = 5) -> Sealed:
    """Write entries and chain them in several goes; return the head."""
    forget_set_up(dsn)
    async with Database(dsn, role="anxin_door") as door, worker(dsn) as db:
        chainer = Chainer(OURS, None)
        for start in range(0, count, at_once):
            await audit.note(door, [noted(n) for n in range(start, start + at_once)])
            head = await chainer.chain(db)
    assert head is not None
    assert head.place == count
    return head


def worker(dsn: str) -> Database:
    return Database(dsn, role="anxin_worker")


def forget_set_up(dsn: str) -> None:
    """Begin with an empty audit: which rights there are was told when they were set up."""
    as_owner(dsn, "TRUNCATE audit_waiting")


def verdict(dsn: str, *known: Sealed) -> Fault | None:
    check = Check(OURS.keys, audit.stored_checkpoint(dsn), known)
    for link in audit.stored_links(dsn):
        if not check.take(link):
            break
    return check.finish()


def as_owner(dsn: str, *statements: str) -> None:
    """Do as somebody who owns the database can: past every trigger and policy."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement.encode())


async def test_what_is_written_is_chained_and_verified(dsn: str) -> None:
    head = await filled(dsn)
    assert verdict(dsn, head) is None
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM audit_waiting").fetchone() == (0,)


TAMPERING = {
    "changed": ("UPDATE audit SET user_id = 99 WHERE place = 13", "changed", 13),
    "changed residents": ("UPDATE audit SET residents = '{1}' WHERE place = 13", "changed", 13),
    "changed time": (
        "UPDATE audit SET at = at + interval '1 microsecond' WHERE place = 13", "changed", 13),
    "deleted": ("DELETE FROM audit WHERE place = 13", "removed", 13),
    "deleted at the beginning": ("DELETE FROM audit WHERE place <= 10", "removed", 1),
    "deleted and moved up": (
        ("DELETE FROM audit WHERE place = 13;"
        "UPDATE audit SET place = -place WHERE place > 13;"
        "UPDATE audit SET place = -place - 1 WHERE place < 0"),
        "changed", 13),
    "moved": (
        ("UPDATE audit SET place = -13 WHERE place = 13;"
        "UPDATE audit SET place = 13 WHERE place = 14;"
        "UPDATE audit SET place = 14 WHERE place = -13"),
        "changed", 13),
    "slipped in": (
        ("UPDATE audit SET place = -place WHERE place >= 13;"
        "UPDATE audit SET place = -place + 1 WHERE place < 0;"
        "INSERT INTO audit SELECT 13, 9000, at, 7, role, path, action, object, object_id,"
        " residents, fields, status, channel, address, hash, NULL FROM audit WHERE place = 12"),
        "changed", 13),
    "added at the end": (
        ("INSERT INTO audit SELECT 41, 9000, at, 7, role, path, action, object, object_id,"
        " residents, fields, status, channel, address, hash, seal FROM audit WHERE place = 40"),
        "changed", 41),
    "cut at a seal": ("DELETE FROM audit WHERE place > 30", "cut", 31),
    "cut elsewhere": ("DELETE FROM audit WHERE place > 33", "cut", 34),
    "emptied": ("TRUNCATE audit", "cut", 1),
    "unsealed": ("UPDATE audit SET seal = NULL WHERE place = 40", "added", 36),
    "seal taken from another": (
        "UPDATE audit SET seal = (SELECT seal FROM audit WHERE place = 10) WHERE place = 20",
        "recomputed", 16),
    "removed as if by retention": (
        ("INSERT INTO audit_checkpoints (place, hash, until, seal)"
        " SELECT place, hash, at, seal FROM audit WHERE place = 10;"
        "DELETE FROM audit WHERE place <= 10"),
        "removal", 10),
}  # fmt: skip


@pytest.mark.parametrize("way", TAMPERING)
async def test_what_an_owner_of_the_database_does_is_found(dsn: str, way: str) -> None:
    head = await filled(dsn)
    statements, deed, place = TAMPERING[way]
    as_owner(dsn, *statements.split(";"))
    fault = verdict(dsn, head)
    assert fault is not None
    assert (fault.deed, fault.place) == (deed, place)


@pytest.mark.parametrize("statement", [
    "UPDATE {} SET {}", "DELETE FROM {}", "TRUNCATE {}",
])  # fmt: skip
@pytest.mark.parametrize("table", ["audit", "audit_waiting", "audit_checkpoints"])
async def test_nobody_changes_what_is_written(dsn: str, table: str, statement: str) -> None:
    await filled(dsn, 5)
    async with Database(dsn, role="anxin_door") as door:
        await audit.note(door, [noted(1)])
    as_owner(
        dsn,
        "INSERT INTO audit_checkpoints (place, hash, until, seal) VALUES (0, '', now(), '')",
    )
    column = "at = now()"
    text = statement.format(table, column)
    with (
        psycopg.connect(dsn, autocommit=True) as connection,
        pytest.raises(errors.InsufficientPrivilege, match="only ever added to"),
    ):
        connection.execute(text.encode())
    for role in ("anxin_api", "anxin_door", "anxin_worker", "anxin_ingest"):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"SET ROLE {role}".encode())
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(text.encode())
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(
                    b"INSERT INTO audit_waiting (action, object) VALUES ('read', 'status')"
                )


async def test_entries_of_a_late_commit_are_chained_after_those_before_it(dsn: str) -> None:
    forget_set_up(dsn)
    async with Database(dsn, role="anxin_door") as door, worker(dsn) as db:
        chainer = Chainer(OURS, None)
        async with door.transaction() as slow:
            await slow.execute(
                b"SELECT note_audit(%s)",
                ['[{"action":"read","object":"late","residents":[],"fields":[]}]'],
            )
            await audit.note(door, [noted(1)])
            assert (await chainer.chain(db)) is not None
        head = await chainer.chain(db)
    assert head is not None
    assert verdict(dsn, head) is None
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT object, id FROM audit ORDER BY place").fetchall()
    assert [row[0] for row in rows] == ["status", "late"]
    assert rows[0][1] > rows[1][1], "the late one was written first"


async def test_of_many_workers_and_writers_each_entry_is_chained_once(dsn: str) -> None:
    forget_set_up(dsn)
    async with Database(dsn, role="anxin_door", size=6) as door, worker(dsn) as db:
        chainers = [Chainer(OURS, None) for _ in range(3)]
        done = asyncio.Event()

        async def chain(one: Chainer) -> None:
            while not done.is_set():
                await one.chain(db)
                await asyncio.sleep(0)

        async def write(writer: int) -> None:
            for number in range(40):
                await audit.note(door, [noted(writer * 1000 + number)])

        async with asyncio.TaskGroup() as group:
            for one in chainers:
                group.create_task(chain(one))
            await asyncio.gather(*(write(writer) for writer in range(6)))
            done.set()
        head = await Chainer(OURS, None).chain(db)
    assert head is not None
    assert head.place == 240
    assert verdict(dsn, head) is None


@pytest.mark.parametrize("way", ["added at the end", "cut at a seal", "emptied", "unsealed"])
async def test_a_worker_does_not_go_on_from_a_chain_that_was_tampered_with(
    dsn: str, way: str
) -> None:
    head = await filled(dsn)
    as_owner(dsn, *TAMPERING[way][0].split(";"))
    async with Database(dsn, role="anxin_door") as door, worker(dsn) as db:
        await audit.note(door, [noted(1)])
        with pytest.raises(ChainBroken):
            await Chainer(OURS, head).chain(db)
        # Nothing was chained over it: the evidence stays as it is.
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT count(*) FROM audit_waiting").fetchone() == (1,)


async def test_what_is_too_old_goes_and_the_rest_can_still_be_verified(dsn: str) -> None:
    forget_set_up(dsn)
    async with Database(dsn, role="anxin_door") as door, worker(dsn) as db:
        chainer = Chainer(OURS, None)
        for age_days in (1200, 1100, 1000, 1):
            await audit.note(door, [noted(n) for n in range(5)])
            as_owner(dsn, f"UPDATE audit_waiting SET at = now() - interval '{age_days} days'")
            head = await chainer.chain(db)
        assert head is not None
        assert await chainer.forget(db, days=1095) == 10
        assert verdict(dsn, head) is None
        assert await chainer.forget(db, days=1095) == 0
        # Never less than 180 days, whatever is asked for.
        assert await chainer.forget(db, days=0) == 5
        assert verdict(dsn, head) is None
        await audit.note(door, [noted(1)])
        head = await chainer.chain(db)
        assert head is not None
        assert head.place == 21
        assert verdict(dsn, head) is None
    fault = verdict(dsn, Sealed(datetime.now(UTC), 20, bytes(32), OURS.seal(head.head)))
    assert fault is not None


async def test_the_database_lets_nothing_young_go(dsn: str) -> None:
    await filled(dsn, 5)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET ROLE anxin_worker")
        with pytest.raises(errors.RaiseException, match="180 days"):
            connection.execute("SELECT forget_audit(5, now() - interval '181 days', '\\x00')")


async def test_a_keeper_makes_its_key_and_keeps_heads_outside(dsn: str, data_dir: Path) -> None:
    forget_set_up(dsn)
    settings = Settings(database=dsn, data_dir=str(data_dir))
    async with Database(dsn, role="anxin_door") as door, worker(dsn) as db:
        keeper = AuditKeeper(db, settings)
        await keeper.tick()
        await audit.note(door, [noted(1)])
        await keeper.tick()
        await audit.note(door, [noted(2)])
        await keeper.tick()
    kept = (data_dir / "audit" / "heads.jsonl").read_text().splitlines()
    assert len(kept) == 1, "one a minute"
    assert oct((data_dir / "audit" / "key").stat().st_mode)[-3:] == "600"
    code, said = command(data_dir, dsn, "verify")
    assert (code, "2 entries" in said) == (0, True), said
    as_owner(dsn, "DELETE FROM audit")
    code, said = command(data_dir, dsn, "verify")
    assert code == 1
    assert "place 1" in said


def alarms(dsn: str) -> list[tuple[object, ...]]:
    """Return what is told of the audit, oldest first."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT p.kind, a.class, a.priority, a.condition, a.detail ->> 'deed',"
            " (a.detail ->> 'place')::int FROM alarms a JOIN places p ON p.id = a.place_id"
            " WHERE a.kind = 'device_fault' AND a.detail ->> 'reason' = 'audit_broken'"
            " ORDER BY a.id"
        ).fetchall()


def district(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO places (kind, name) VALUES ('district', '东湖区')")
        connection.execute(
            "INSERT INTO places (kind, name, parent_id) SELECT 'town', '梨园镇', id FROM places"
        )


@pytest.mark.parametrize(
    ("way", "deed", "place"),
    [("changed", "changed", 13), ("deleted", "removed", 13), ("cut elsewhere", None, None)],
)
async def test_a_broken_chain_is_one_alarm_at_the_top_until_it_is_whole(
    dsn: str, data_dir: Path, way: str, deed: str | None, place: int | None
) -> None:
    await filled(dsn)
    district(dsn)
    settings = Settings(database=dsn, data_dir=str(data_dir), audit_key=KEY)
    metrics = Metrics(CollectorRegistry())
    as_owner(dsn, "CREATE TABLE before AS TABLE audit")
    async with worker(dsn) as db:
        keeper = AuditKeeper(db, settings, metrics)
        await keeper.tick()
        await keeper.verify()
        assert alarms(dsn) == []
        assert metrics.verified.collect()[0].samples[0].value > 0
        as_owner(dsn, *TAMPERING[way][0].split(";"))
        for _ in range(3):
            if deed is None:
                # What lies at the end is seen at once.
                with pytest.raises(ChainBroken):
                    await keeper.tick()
            else:
                await keeper.tick()
                with pytest.raises(ChainBroken, match="Run `anxin audit verify`"):
                    await keeper.verify()
        told = ("district", "technical", 2)
        assert alarms(dsn) == [(*told, "present", deed, place)]
        assert metrics.broken.collect()[0].samples[0].value == 1
        as_owner(dsn, "TRUNCATE audit", "INSERT INTO audit TABLE before")
        await keeper.tick()
        await keeper.verify()
        assert alarms(dsn) == [(*told, "recovered", deed, place)]
        assert metrics.broken.collect()[0].samples[0].value == 0


async def test_a_patrol_goes_through_a_long_chain_piece_by_piece_while_it_grows_and_shrinks(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PIECE", 10)
    forget_set_up(dsn)
    patrol = audit.Patrol(OURS)
    async with Database(dsn, role="anxin_door") as door, worker(dsn) as db:
        chainer = Chainer(OURS, None)
        for age_days in (1200, 1100, 1):
            await audit.note(door, [noted(n) for n in range(20)])
            as_owner(dsn, f"UPDATE audit_waiting SET at = now() - interval '{age_days} days'")
            await chainer.chain(db)
        assert await patrol.go_on(db, chainer.known) is False
        # What retention takes under a patrol is no fault.
        assert await chainer.forget(db, days=1095) == 40
        found = [await patrol.go_on(db, chainer.known) for _ in range(4)]
        assert found == [False, False, False, True]
        as_owner(dsn, "UPDATE audit SET role = 'admin' WHERE place = 55")
        found = [await patrol.go_on(db, chainer.known) for _ in range(2)]
    assert isinstance(found[-1], Fault)
    assert (found[-1].deed, found[-1].place) == ("changed", 55)


async def test_after_a_restore_the_chain_goes_on_and_verify_tells_of_it(
    dsn: str, empty_dsn: str, data_dir: Path
) -> None:
    await filled(dsn)
    settings = Settings(database=dsn, data_dir=str(data_dir), audit_key=KEY)
    file = data_dir / "before.backup"
    async with Database(dsn, role="anxin_door") as door, worker(dsn) as db:
        await AuditKeeper(db, settings).tick()
        back_up(dsn, file, datetime.now(UTC))
        await audit.note(door, [noted(n) for n in range(7)])
        await AuditKeeper(db, settings).tick()
    restore_database(file, empty_dsn)

    settings = Settings(database=empty_dsn, data_dir=str(data_dir), audit_key=KEY)
    async with Database(empty_dsn, role="anxin_door") as door, worker(empty_dsn) as db:
        keeper = AuditKeeper(db, settings)
        await audit.note(door, [noted(1)])
        with pytest.raises(ChainBroken):
            await keeper.tick()
        code, said = command(data_dir, empty_dsn, "verify", key=KEY)
        assert (code, "the end is missing" in said) == (1, True), said
        code, said = command(data_dir, empty_dsn, "restored", key=KEY)
        assert (code, "Places 41 to 47 were lost" in said) == (0, True), said
        # The same worker, without a new start.
        await keeper.tick()
        await keeper.verify()
    aside = data_dir / "audit" / "heads-40-47.jsonl"
    code, said = command(data_dir, empty_dsn, "verify", key=KEY)
    assert (code, "42 entries up to place 42" in said) == (0, True), said
    assert "a backup was restored, and places 41-47 of before were lost" in said
    code, said = command(data_dir, empty_dsn, "verify", "--heads", str(aside), key=KEY)
    assert (code, "differs from the head" in said or "missing" in said) == (1, True), said
    # What was kept of before still guards what came back.
    code, said = command(data_dir, empty_dsn, "restored", key=KEY)
    assert (code, said.startswith("Nothing is lost")) == (0, True), said


async def test_nobody_calls_tampering_a_restore(dsn: str, data_dir: Path) -> None:
    await filled(dsn)
    settings = Settings(database=dsn, data_dir=str(data_dir), audit_key=KEY)
    async with worker(dsn) as db:
        await AuditKeeper(db, settings).tick()
    as_owner(dsn, "DELETE FROM audit WHERE place > 30; DELETE FROM audit WHERE place = 13")
    code, said = command(data_dir, dsn, "restored", key=KEY)
    assert (code, "places 13 to 13 are missing" in said) == (1, True), said
    assert (data_dir / "audit" / "heads.jsonl").exists()


def command(data_dir: Path, dsn: str, *words: str, key: str | None = None) -> tuple[int, str]:
    environ = os.environ | {"ANXIN_DATABASE": dsn} | ({"ANXIN_AUDIT_KEY": key} if key else {})
    arguments = ["audit", "--data-dir", str(data_dir), *words]
    done = subprocess.run(  # our own command
        [sys.executable, "-m", "anxin.cli", *arguments],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


async def test_an_export_can_be_verified_without_the_database(dsn: str, data_dir: Path) -> None:
    await filled(dsn)
    file = data_dir / "audit.jsonl"
    assert command(data_dir, dsn, "export", str(file), key=KEY)[0] == 0
    assert len(file.read_text().splitlines()) == 41
    code, said = command(data_dir, "postgresql://nowhere", "verify", "--file", str(file))
    assert (code, "40 entries" in said) == (0, True), said
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:20] + lines[21:]))
    code, said = command(data_dir, "postgresql://nowhere", "verify", "--file", str(file))
    assert code == 1
    assert "first at place 20" in said
    code, said = command(data_dir, dsn, "export", str(file), key=KEY)
    assert code == 1, "nothing is overwritten"


async def test_a_part_can_be_exported_and_verified(dsn: str, data_dir: Path) -> None:
    forget_set_up(dsn)
    async with Database(dsn, role="anxin_door") as door, worker(dsn) as db:
        chainer = Chainer(OURS, None)
        for day in range(1, 7):
            await audit.note(door, [noted(n) for n in range(5)])
            as_owner(dsn, f"UPDATE audit_waiting SET at = '2026-11-0{day}T12:00Z'")
            await chainer.chain(db)
    for options, entries in (
        (["--from", "2026-11-03", "--to", "2026-11-05"], 10),
        (["--from", "2026-11-05"], 10),
        (["--to", "2026-11-02"], 5),
        (["--from", "2027-01-01"], 0),
        (["--to", "2020-01-01"], 0),
    ):
        file = data_dir / f"{entries}-{len(options)}-{options[-1]}.jsonl"
        code, said = command(data_dir, dsn, "export", *options, str(file), key=KEY)
        assert (code, f"{entries} entries" in said) == (0, True), said
        code, said = command(data_dir, "postgresql://nowhere", "verify", "--file", str(file))
        assert (code, f"{entries} entries" in said) == (0, True), said


async def test_without_the_right_key_nothing_is_called_good(dsn: str, data_dir: Path) -> None:
    await filled(dsn)
    code, said = command(data_dir, dsn, "verify")
    assert code == 2
    assert "no key" in said
    code, said = command(data_dir, dsn, "verify", "--public-key", KEY)
    assert code == 1
    code, said = command(data_dir, dsn, "verify", key=KEY)
    assert code == 0
    assert "a cut end could not be noticed" in said
    code, said = command(data_dir, dsn, "verify", key="short")
    assert code == 2


async def test_entries_that_are_never_chained_are_told_of(dsn: str, data_dir: Path) -> None:
    await filled(dsn)
    async with Database(dsn, role="anxin_door") as door:
        await audit.note(door, [noted(1)])
    as_owner(dsn, "UPDATE audit_waiting SET at = now() - interval '10 minutes'")
    code, said = command(data_dir, dsn, "verify", key=KEY)
    assert code == 1
    assert re.search(r"1 entries wait", said)
