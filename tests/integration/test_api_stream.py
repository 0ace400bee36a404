"""The alarm stream: nothing lost, doubled or out of order; and only for those who may see it."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from tests.integration.api_world import Api, Stream, running, settle
from tests.waiting import eventually


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn)) as serving:
        yield serving


async def close_code(stream: Stream) -> int:
    """Read until the server closes, and return its code."""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(20):
            while True:
                await stream.socket.recv()
    code = stream.socket.close_code
    assert code is not None
    return code


async def told(stream: Stream) -> list[tuple[int, str, str]]:
    """Return what a stream tells until nothing has come for a moment: (cursor, change, kind)."""
    frames = []
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.7):
                frame = msgspec.json.decode(await stream.socket.recv())
            if frame["type"] == "alarm":
                frames.append((frame["cursor"], frame["change"], frame["alarm"]["kind"]))
    return frames


async def test_an_alarm_reaches_the_station_with_what_may_be_done(api: Api) -> None:
    async with api.stream("nurse") as stream:
        ready = await stream.next("ready")
        alarm = api.world.alarm("anna")
        frame = await stream.next("alarm")
        assert frame["cursor"] > ready["cursor"]
        assert frame["change"] == "raised"
        assert frame["alarm"]["id"] == alarm
        assert frame["alarm"]["resident_id"] == api.world.ids["anna"]
        assert frame["alarm"]["actions"] == ["acknowledge", "arrive", "note"]
        assert "anna" not in msgspec.json.encode(frame).decode()
        await api["nurse"].post(f"/alarms/{alarm}/acknowledge")
        taken = await stream.next("alarm")
        assert (taken["change"], taken["alarm"]["owner"]) == ("acknowledged", "nurse")
        assert taken["cursor"] > frame["cursor"]
        rest = (await api["nurse"].get(f"/alarms/{alarm}")).json()
        assert rest.items() >= {k: v for k, v in taken["alarm"].items() if k != "actions"}.items()


async def test_without_a_cursor_nothing_from_before_is_told(api: Api) -> None:
    api.world.alarm("anna")
    async with api.stream("nurse") as stream:
        await stream.next("ready")
        api.world.alarm("anna", "fall")
        assert (await stream.next("alarm"))["alarm"]["kind"] == "fall"


async def test_a_cursor_is_resumed_where_it_was_left(api: Api) -> None:
    async with api.stream("nurse") as stream:
        start = (await stream.next("ready"))["cursor"]
    for kind in ("fall", "sos", "smoke"):
        api.world.alarm("anna", kind)
    async with api.stream("nurse", start) as stream:
        assert (await stream.next("ready"))["cursor"] == start
        frames = await stream.alarms(3)
        assert [frame["alarm"]["kind"] for frame in frames] == ["fall", "sos", "smoke"]
    async with api.stream("nurse", frames[0]["cursor"]) as stream:
        await stream.next("ready")
        again = await stream.alarms(2)
        assert again == frames[1:]
        api.world.alarm("anna", "gas")
        assert (await stream.next("alarm"))["alarm"]["kind"] == "gas"


async def test_a_cursor_from_the_future_or_of_removed_lines_asks_for_a_resync(api: Api) -> None:
    for kind in ("fall", "sos", "smoke"):
        api.world.alarm("anna", kind)
    async with api.stream("nurse", 1_000_000) as stream:
        await stream.next("resync")
        last = (await stream.next("ready"))["cursor"]
        assert last == 3
    api.world.ask("DELETE FROM alarms WHERE kind IN ('fall', 'sos')")
    async with api.stream("nurse", 0) as stream:
        await stream.next("resync")
        assert (await stream.next("ready"))["cursor"] == last
    async with api.stream("nurse", 2) as stream:
        assert (await stream.next("ready"))["cursor"] == 2
        assert (await stream.next("alarm"))["alarm"]["kind"] == "smoke"


async def test_a_cursor_is_never_given_twice_when_the_newest_lines_are_removed(api: Api) -> None:
    async with api.stream("nurse") as stream:
        await stream.next("ready")
        api.world.alarm("anna", "fall")
        first = await stream.next("alarm")
        api.world.ask("DELETE FROM alarms")
        api.world.alarm("anna", "sos")
        second = await stream.next("alarm")
        assert second["cursor"] > first["cursor"]


async def test_a_change_that_commits_late_is_told_and_nothing_passes_it_by(api: Api) -> None:
    world = api.world
    async with api.stream("nurse", 0) as stream:
        await stream.next("ready")
        with world.sql(autocommit=False) as slow:
            world.alarm("anna", "fall", connection=slow)  # its line has the lower number
            world.alarm("anna", "sos")
            early = await stream.next("alarm")
            assert early["alarm"]["kind"] == "sos"
            slow.commit()
        late = await stream.next("alarm")
        assert late["alarm"]["kind"] == "fall"
        assert late["cursor"] > early["cursor"]
    ids = {row["kind"]: row["id"] for row in world.ask(
        "SELECT t.id, alarm ->> 'kind' AS kind FROM timeline t")}  # fmt: skip
    assert ids["fall"] < ids["sos"]
    async with api.stream("nurse", early["cursor"]) as stream:
        await stream.next("ready")
        assert (await stream.next("alarm"))["alarm"]["kind"] == "fall"


@pytest.mark.parametrize("tail", [3, 2000])
async def test_streams_that_come_and_go_under_writers_see_every_change_once(
    dsn: str, tail: int
) -> None:
    """With a tail of three lines every resumption has to read from the table."""
    writers, changes = 4, 30
    world = settle(dsn)
    chance = random.Random(tail)  # noqa: S311  # repeatable, not secret

    def write(number: int) -> None:
        with world.sql(autocommit=False) as connection:
            for change in range(changes):
                world.alarm("anna", f"kind_{number}_{change}", connection=connection)
                if change % 7 == number:
                    connection.execute(b"SELECT pg_sleep(0.03)")  # others overtake this one
                connection.commit()

    async with running(world, tail=tail) as api:
        writing = asyncio.gather(*(asyncio.to_thread(write, number) for number in range(writers)))
        seen: list[tuple[int, str]] = []
        cursor = 0
        async with asyncio.timeout(60):
            while len(seen) < writers * changes:
                async with api.stream("nurse", cursor) as stream:
                    await stream.next("ready")
                    for _ in range(chance.randint(1, 12)):
                        if len(seen) == writers * changes:
                            break
                        frame = await stream.next("alarm")
                        cursor = frame["cursor"]
                        seen.append((cursor, frame["alarm"]["kind"]))
            await writing
        async with api.stream("nurse", cursor) as stream:
            await stream.next("ready")
            assert await told(stream) == []
    cursors = [cursor for cursor, _ in seen]
    assert cursors == sorted(set(cursors))
    assert {kind for _, kind in seen} == {
        f"kind_{number}_{change}" for number in range(writers) for change in range(changes)
    }


async def test_several_api_processes_agree_on_the_order(dsn: str) -> None:
    world = settle(dsn)
    async with (
        running(world) as one,
        running(world) as two,
        one.stream("nurse", 0) as here,
        two.stream("nurse", 0) as there,
    ):
        for number in range(20):
            world.alarm("anna", f"kind_{number}")
        assert await here.alarms(20) == await there.alarms(20)


async def test_a_ticket_opens_one_stream_only(api: Api) -> None:
    ticket = (await api["nurse"].post("/stream/tickets")).json()["ticket"]
    async with api.socket() as first, api.socket() as second:
        opened, refused = Stream(first), Stream(second)
        await opened.say(type="hello", ticket=ticket, cursor=None)
        await opened.next("ready")
        await refused.say(type="hello", ticket=ticket, cursor=None)
        assert await close_code(refused) == 4001
    late = (await api["nurse"].post("/stream/tickets")).json()["ticket"]
    api.world.ask("UPDATE tickets SET expires_at = now()")
    async with api.socket() as socket:
        expired = Stream(socket)
        await expired.say(type="hello", ticket=late, cursor=None)
        assert await close_code(expired) == 4001
    assert (await api["nobody"].post("/stream/tickets")).status_code == 401


@pytest.mark.parametrize(
    "frame",
    ["", "[]", "hello", '{"type":"hello"}', '{"type":"hello","ticket":"x","cursor":-1}', b"\x00"],
)
async def test_a_malformed_hello_ends_the_stream(api: Api, frame: str | bytes) -> None:
    async with api.socket() as socket:
        await socket.send(frame)
        assert await close_code(Stream(socket)) == 4002


@pytest.mark.parametrize(
    "frame",
    ['{"type":"received"}', '{"type":"displayed","alarm_id":5}', '{"type":"dance"}', "\x00",
     '{"type":"received","cursor":99999999999999999999}', b"binary"],
)  # fmt: skip
async def test_a_malformed_frame_ends_the_stream(api: Api, frame: str | bytes) -> None:
    async with api.stream("nurse") as stream:
        await stream.next("ready")
        await stream.socket.send(frame)
        assert await close_code(stream) == 4002


async def test_a_viewer_that_does_not_keep_up_is_cut_off_and_resumes(dsn: str) -> None:
    world = settle(dsn)
    async with running(world, queue=20) as api, api.stream("nurse") as quick:
        start = (await quick.next("ready"))["cursor"]
        # The client stops to read: small buffers fill at once, then the queue.
        async with api.stream("nurse", start, max_queue=1) as slow:
            await slow.next("ready")
            slow.socket.transport.pause_reading()
            big = msgspec.json.encode({"x": "y" * 30_000}).decode()
            count = 0

            def raise_one() -> None:
                world.alarm("anna", f"kind_{count}")
                world.ask("UPDATE alarms SET detail = %s::jsonb", big)
                world.ask(
                    "SELECT record_change(a, 'note', NULL, 'test', 'rule')"
                    " FROM alarms a ORDER BY id DESC LIMIT 1"
                )

            async with asyncio.timeout(60):
                while not _cut_off(api, 4008):
                    await asyncio.to_thread(raise_one)
                    count += 1
                    await quick.alarms(2)
            slow.socket.transport.resume_reading()
            seen = []
            with contextlib.suppress(ConnectionClosed):
                async with asyncio.timeout(20):
                    while True:
                        frame = msgspec.json.decode(await slow.socket.recv())
                        if frame["type"] == "alarm":
                            seen.append(frame["cursor"])
            assert slow.socket.close_code == 4008
        assert seen == list(range(start + 1, start + 1 + len(seen)))
        async with api.stream("nurse", seen[-1] if seen else start) as resumed:
            await resumed.next("ready")
            rest = await resumed.alarms(2 * count - len(seen))
        assert [frame["cursor"] for frame in rest][-1] == start + 2 * count


def _cut_off(api: Api, code: int) -> bool:
    services = api.server.config.app.state.services  # type: ignore[union-attr]
    value = services.metrics.registry.get_sample_value(
        "anxin_stream_closed_total", {"code": str(code)}
    )
    return bool(value)


async def test_each_role_sees_exactly_its_residents(api: Api) -> None:
    world = api.world
    world.link("family", "anna", "status", "alarms")
    async with contextlib.AsyncExitStack() as stack:
        streams = {
            user: await stack.enter_async_context(api.stream(user))
            for user in ("admin", "supervisor", "nurse", "nurse-b", "integrator", "family")
        }
        for stream in streams.values():
            await stream.next("ready")
        world.alarm("anna", "sos")
        world.alarm("bela", "fall")
        key = world.device("lobby", "B")
        world.ask(
            "SELECT raise_alarm(%s, NULL, %s, %s, 'smoke', 'safety', 3::smallint, now(), false, 1,"
            " '{}', 'test')",
            f"p{world.ids['B']}",
            int(world.ids["B"]),
            key,
        )
        kinds = {
            user: [kind for _, _, kind in await told(stream)] for user, stream in streams.items()
        }
    assert kinds == {
        "admin": ["sos", "fall", "smoke"],
        "supervisor": ["sos"],
        "nurse": ["sos"],
        "nurse-b": ["fall", "smoke"],
        "integrator": ["sos"],
        "family": ["sos"],
    }


async def test_what_a_relative_and_an_integrator_are_told_of_an_alarm(api: Api) -> None:
    world = api.world
    world.link("family", "anna", "alarms")
    async with api.stream("family") as family, api.stream("integrator") as integrator:
        await family.next("ready")
        await integrator.next("ready")
        alarm = world.alarm("anna")
        await api["nurse"].post(f"/alarms/{alarm}/acknowledge")
        for frame in await family.alarms(2):
            shown = frame["alarm"]
            assert (shown["detail"], shown["owner"], shown["actions"]) == ({}, None, [])
        theirs = (await integrator.alarms(2))[-1]["alarm"]
        assert (theirs["detail"], theirs["owner"], theirs["actions"]) == ({"value": 1}, "nurse", [])


async def test_each_side_of_a_resident_needs_its_own_consent(api: Api) -> None:
    world = api.world
    world.link("family", "anna", "alarms")
    async with api.stream("family") as stream:
        await stream.next("ready")
        world.alarm("anna")
        await stream.next("alarm")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                while True:
                    assert msgspec.json.decode(await stream.socket.recv())["type"] != "status"
    world.link("family", "anna", "status")
    async with api.stream("family") as stream:
        await stream.next("status")
        world.alarm("anna", "fall")
        assert (await stream.next("status"))["state"] == "emergency"
        assert await told(stream) == []


async def test_a_withdrawn_permission_ends_what_is_told_within_a_second(api: Api) -> None:
    world = api.world
    async with api.stream("family") as stream:
        await stream.next("ready")
        world.alarm("anna", "sos")
        await stream.next("alarm")
        path = f"/residents/{world.ids['anna']}/family/{world.ids['family']}"
        assert (await api["supervisor"].delete(path)).status_code == 204
        await asyncio.sleep(1.1)  # the promise under test is this time
        world.alarm("anna", "fall")
        assert await told(stream) == []
        world.link("family", "anna", "alarms")
        await asyncio.sleep(1.1)
        world.alarm("anna", "smoke")
        assert (await stream.next("alarm"))["alarm"]["kind"] == "smoke"


async def test_a_resident_who_moves_changes_stations(api: Api) -> None:
    world = api.world
    async with api.stream("nurse") as here, api.stream("nurse-b") as there:
        await here.next("ready")
        await there.next("ready")
        body = {"place_id": world.ids["B"]}
        path = f"/residents/{world.ids['anna']}"
        assert (await api["admin"].patch(path, json=body)).status_code == 200
        world.alarm("anna")
        assert (await there.next("alarm"))["alarm"]["kind"] == "sos"
        assert await told(here) == []


async def test_logging_out_closes_the_stream(api: Api) -> None:
    async with api.stream("nurse") as stream:
        await stream.next("ready")
        await api["nurse"].post("/auth/logout")
        assert await close_code(stream) == 4001
    async with api.stream("nurse-b") as stream:
        await stream.next("ready")
        world = api.world
        await api["admin"].patch(f"/users/{world.ids['nurse-b']}", json={"disabled": True})
        assert await close_code(stream) == 4001


async def test_receipts_are_kept_for_alarms_that_the_viewer_may_see(api: Api) -> None:
    world = api.world
    foreign = world.alarm("bela")
    async with api.stream("nurse") as stream:
        await stream.next("ready")
        alarm = world.alarm("anna")
        frame = await stream.next("alarm")
        await stream.say(type="displayed", alarm_id=foreign)
        await stream.say(type="displayed", alarm_id="999999")
        await stream.say(type="received", cursor=frame["cursor"] + 1000)
        await stream.say(type="received", cursor=frame["cursor"])
        await stream.say(type="displayed", alarm_id=alarm)
        await stream.say(type="displayed", alarm_id=alarm)
        query = "SELECT alarm_id::text, user_id::text, kind, cursor FROM receipts ORDER BY kind"
        rows = await eventually(lambda: len(found := world.ask(query)) == 2 and found)
    nurse = world.ids["nurse"]
    assert [tuple(row.values()) for row in rows] == [
        (alarm, nurse, "displayed", 0),
        (alarm, nurse, "received", frame["cursor"]),
    ]
    shown = "SELECT displayed_at IS NOT NULL AS shown FROM outbox WHERE alarm_id = %s"
    assert world.one(shown, int(alarm)) is True
    assert world.one(shown, int(foreign)) is False


async def test_statuses_come_at_first_and_when_something_is_new(api: Api) -> None:
    world = api.world
    key = world.device("mat", "A", "anna")

    def hears(rate: int) -> None:
        world.ask(
            "INSERT INTO latest (device_key, ts, received_at, metrics) VALUES (%s, now(), now(),"
            " jsonb_build_object('hr', jsonb_build_array(%s::int,"
            " (extract(epoch FROM now()) * 1000)::bigint)))"
            " ON CONFLICT (device_key) DO UPDATE SET received_at = now(),"
            " metrics = excluded.metrics",
            key,
            rate,
        )

    async def status_where(stream: Stream, **wanted: object) -> dict[str, Any]:
        while True:
            frame = await stream.next("status")
            if frame["resident_id"] == world.ids["anna"] and frame.items() >= wanted.items():
                return frame

    async with api.stream("nurse") as stream, api.stream("nurse-b") as other:
        await status_where(stream, state="unknown", monitored=True)
        hears(71)
        frame = await status_where(stream, state="well")
        assert frame["latest"]["hr"]["value"] == 71
        rest = (await api["nurse"].get(f"/residents/{world.ids['anna']}/status")).json()
        assert frame == {"type": "status", "resident_id": world.ids["anna"], **rest}
        alarm = world.alarm("anna")
        await status_where(stream, state="emergency", open_alarms=1)
        await api["nurse"].post(f"/alarms/{alarm}/acknowledge")
        await api["nurse"].post(f"/alarms/{alarm}/close", json={"outcome": "test"})
        await status_where(stream, state="well", open_alarms=0)
        world.ask("UPDATE latest SET received_at = now() - interval '14 minutes 59 seconds'")
        await status_where(stream, state="unknown")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    frame = msgspec.json.decode(await other.socket.recv())
                    assert frame.get("resident_id") != world.ids["anna"]


async def test_pings_come_while_nothing_happens(api: Api) -> None:
    async with api.stream("nurse") as stream:
        await stream.next("ready")
        loop = asyncio.get_running_loop()
        await stream.next("ping")
        began = loop.time()
        await stream.next("ping")
        assert 4 < loop.time() - began < 6


async def test_the_stream_survives_the_loss_of_its_database_connections(api: Api) -> None:
    world = api.world
    async with api.stream("nurse") as stream:
        await stream.next("ready")
        world.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        world.alarm("anna")
        assert (await stream.next("alarm"))["alarm"]["kind"] == "sos"
