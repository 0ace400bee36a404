"""The delivery worker on a real Postgres and real sockets: nobody forgotten, nobody told twice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from anxin.config import Settings
from anxin.db.pool import Database
from anxin.notify.channel import Channel, Contact, Receipt, Sent
from anxin.notify.delivery import MOST_ATTEMPTS, MOST_URGENT, Delivery, Metrics
from anxin.notify.notice import Notice
from models import escalate
from tests import recording
from tests.factories import Ward
from tests.recording import Provider, Reply
from tests.waiting import eventually


class House(Ward):
    """A facility with a resident, a nurse, ways to reach her, and alarms about him."""

    def __init__(self, dsn: str) -> None:
        """Make them."""
        super().__init__(dsn)
        self.wang = self.resident()
        self.nurse = self._id(
            "INSERT INTO users (username, password_hash, role, place_id)"
            " VALUES ('nurse', '-', 'nurse', %(place)s) {}",
            {"place": self.place},
        )

    def contact(self, address: str, channel: str = "webhook", *, robot: bool = False) -> int:
        """Add a way to the nurse, or a robot of the place."""
        return self._id(
            "INSERT INTO contacts (user_id, place_id, office, channel, address, secret)"
            " VALUES (%(user)s, %(place)s, %(office)s, %(channel)s, %(address)s, 's') {}",
            {
                "user": None if robot else self.nurse,
                "place": self.place if robot else None,
                "office": "robot" if robot else None,
                "channel": channel,
                "address": address,
            },
        )

    def alarm(self, kind: str = "sos", class_: str = "emergency", priority: int = 3) -> int:
        """Raise an alarm without its timer: these tests say themselves who is told."""
        resident = self.resident(f"张{self.value('SELECT count(*) FROM residents')}")
        self.value(
            "SELECT raise_alarm(%s, %s, NULL, NULL, %s, %s, %s::smallint, now(), false, 1,"
            " '{}', 'test')",
            f"r{resident}", resident, kind, class_, priority,
        )  # fmt: skip
        return int(self.value("SELECT max(id) FROM alarms WHERE kind = %s", kind))

    def delivery(
        self, alarm: int, contact: int | None, channel: str = "webhook", *, due: str = "0 seconds"
    ) -> int:
        """Add a notice to the nurse, or to the contact of a place."""
        person = contact is None or self.value(
            "SELECT user_id FROM contacts WHERE id = %s", contact
        )
        return self._id(
            "INSERT INTO deliveries (key, alarm_id, audience, user_id, contact_id, channel, due_at)"
            " VALUES (%(key)s, %(alarm)s, 'first', %(user)s, %(contact)s, %(channel)s,"
            " now() + %(due)s::interval) {}",
            {
                "key": f"{alarm}:1:0:first:{contact}:{channel}",
                "alarm": alarm,
                "user": self.nurse if person else None,
                "contact": contact,
                "channel": channel,
                "due": due,
            },
        )

    def states(self) -> list[str]:
        """Return the state of every delivery, oldest first."""
        return [row["state"] for row in self.rows("SELECT state FROM deliveries ORDER BY id")]


@pytest.fixture
def house(dsn: str) -> Iterator[House]:
    made = House(dsn)
    yield made
    made.close()


@pytest.fixture
async def stub() -> AsyncIterator[Provider]:
    async with Provider(lambda _: Reply({"id": "p1", "errcode": 0, "code": 0})).serving() as made:
        yield made


@asynccontextmanager
async def working(
    dsn: str, channels: dict[str, Channel] | None = None, **settings: Any
) -> AsyncIterator[Delivery]:
    """Lend a delivery worker that ticks when it is told to."""
    chosen = Settings(database=dsn, allow_private_webhooks=True, **settings)
    async with (
        Database(dsn, role="anxin_worker", size=4) as db,
        Delivery(db, chosen, Metrics(CollectorRegistry()), channels=channels) as delivery,
    ):
        yield delivery


async def once(delivery: Delivery) -> int:
    """Tick and wait until everything taken has come to its end."""
    taken = await delivery.tick()
    await delivery.idle()
    return taken


async def test_what_is_due_is_sent_once_with_its_key_and_without_the_name(
    house: House, stub: Provider, dsn: str
) -> None:
    contact = house.contact(stub.address)
    house.delivery(house.alarm(), contact)
    house.delivery(house.alarm("fall"), contact, due="1 hour")
    async with working(dsn) as delivery:
        assert await once(delivery) == 1
        assert await once(delivery) == 0
    (heard,) = stub.heard
    sent, later = house.rows("SELECT * FROM deliveries ORDER BY id")
    assert heard.json["key"] == sent["key"]
    assert heard.json["what_zh"] == "紧急呼叫"
    assert heard.json["place"] == "安心"
    assert "张" in heard.json["who"]
    assert (sent["state"], sent["provider_id"], sent["claimed_by"]) == ("sent", "p1", None)
    assert later["state"] == "pending"
    assert house.value("SELECT last_ok_at FROM contacts") is not None


async def test_more_than_can_be_taken_at_once_is_taken_as_soon_as_there_is_room(
    house: House, stub: Provider, dsn: str
) -> None:
    contact = house.contact(stub.address)
    for _ in range(MOST_URGENT + 3):
        house.delivery(house.alarm(), contact)
    async with working(dsn) as delivery:
        assert await delivery.tick() == MOST_URGENT
        async with asyncio.timeout(10):
            await delivery.room.wait()
        await delivery.idle()
        delivery.room.clear()
        assert await once(delivery) == 3
        assert not delivery.room.is_set()
    assert len(stub.heard) == MOST_URGENT + 3


async def test_every_alarm_is_told_of_once_before_any_is_told_of_again(
    house: House, stub: Provider, dsn: str
) -> None:
    contact = house.contact(stub.address)
    for number in range(MOST_URGENT):
        house.delivery(house.alarm(f"sos{number}"), contact)
    house.db.execute("UPDATE deliveries SET round = 2, due_at = now() - interval '1 hour'")
    first = house.delivery(house.alarm("fall"), contact)
    async with working(dsn) as delivery:
        assert await once(delivery) == MOST_URGENT
    assert house.value("SELECT state FROM deliveries WHERE id = %s", first) == "sent"
    assert house.states().count("pending") == 1


@pytest.mark.parametrize("screen_is_first", [True, False])
async def test_a_notice_and_its_receipt_written_at_the_same_time_find_each_other(
    house: House, dsn: str, screen_is_first: bool
) -> None:
    alarm = house.alarm()
    notice = (
        "INSERT INTO deliveries (key, alarm_id, audience, user_id, channel, due_at)"
        " VALUES ('k', %s, 'first', %s, 'station', now())"
    )
    receipt = "INSERT INTO receipts (alarm_id, user_id, kind) VALUES (%s, %s, 'displayed')"
    with (
        psycopg.connect(dsn, options="-c role=anxin_worker") as worker,
        psycopg.connect(dsn, options="-c role=anxin_door") as door,
    ):
        worker.execute(notice.encode(), [alarm, house.nurse])
        door.execute(receipt.encode(), [alarm, house.nurse])
        # Neither knows of the other; the worker looks between the two, and after both.
        async with working(dsn) as delivery:
            for connection in (door, worker) if screen_is_first else (worker, door):
                connection.commit()
                await once(delivery)
    assert house.states() == ["displayed"]


async def test_a_change_of_the_alarm_changes_whose_turn_it_is(house: House) -> None:
    contact = house.contact("http://127.0.0.1:9/")
    alarm = house.alarm("heart_rate_high", "physiological", 2)
    house.delivery(alarm, contact)
    assert not house.value("SELECT urgent FROM deliveries")
    house.db.execute("UPDATE alarms SET priority = 3")
    assert house.value("SELECT urgent FROM deliveries")
    assert house.value("SELECT priority FROM deliveries") == 3


async def test_an_alarm_taken_between_claim_and_send_is_not_sent(
    house: House, stub: Provider, dsn: str
) -> None:
    alarm = house.alarm()
    house.delivery(alarm, house.contact(stub.address))

    class Slow(Stub):
        def fault(self, contact: Contact) -> str | None:
            del contact
            house.db.execute(
                "UPDATE alarms SET handling = 'acknowledged', owner_id = %s WHERE id = %s",
                [house.nurse, alarm],
            )
            return None

    channel = Slow("webhook")
    async with working(dsn, {"webhook": channel}) as delivery:
        await once(delivery)
    assert channel.sent == []
    assert house.states() == ["cancelled"]


class Stub:
    """A channel of the test's own: keeps what it was asked to send."""

    most_per_minute = None

    def __init__(
        self, name: str, receipts: frozenset[Receipt] = frozenset({"sent"}),
        act: Callable[[], Any] | None = None,
    ) -> None:  # fmt: skip
        """`act` is called, and awaited, at each send."""
        self.name = name
        self.receipts = receipts
        self.sent: list[tuple[str, Notice]] = []
        self._act = act

    def fault(self, contact: Contact) -> str | None:
        """Never."""
        return None if contact.address else "no address"

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:
        """Keep it."""
        del contact
        self.sent.append((key, notice))
        if self._act is not None:
            await self._act()
        return Sent(f"{self.name}-{len(self.sent)}")


async def test_a_refusal_for_good_makes_the_next_way_due_at_once(
    house: House, stub: Provider, dsn: str
) -> None:
    stub.answer = lambda heard: Reply(None, 410 if heard.path == "/gone" else 200)
    alarm = house.alarm()
    house.delivery(alarm, house.contact(f"{stub.address}/gone"))
    house.contact(f"{stub.address}/next")
    async with working(dsn) as delivery:
        await once(delivery)
        await once(delivery)
        await once(delivery)
    assert [heard.path for heard in stub.heard] == ["/gone", "/next"]
    assert house.states() == ["failed", "sent"]
    assert house.value("SELECT failures FROM contacts ORDER BY id LIMIT 1") == 1


async def test_a_passing_failure_is_tried_again_later_each_time_and_at_last_given_up(
    house: House, stub: Provider, dsn: str
) -> None:
    stub.answer = lambda _: Reply(None, 503)
    house.delivery(house.alarm(), house.contact(stub.address))
    rests = []
    async with working(dsn) as delivery:
        for _ in range(MOST_ATTEMPTS):
            await once(delivery)
            rests.append(
                house.value("SELECT extract(epoch FROM due_at - now())::float FROM deliveries")
            )
            assert await once(delivery) == 0
            house.db.execute("UPDATE deliveries SET due_at = now()")
        assert await once(delivery) == 0
    assert len(stub.heard) == MOST_ATTEMPTS
    assert 1.5 < rests[0] < 2.6
    assert 3.5 < rests[1] < 5.1
    assert max(rests) < 76
    assert house.states() == ["failed"]


async def test_the_rest_a_provider_asks_for_is_given(
    house: House, stub: Provider, dsn: str
) -> None:
    stub.answer = lambda _: Reply(None, 429, {"retry-after": "120"})
    house.delivery(house.alarm(), house.contact(stub.address))
    async with working(dsn) as delivery:
        await once(delivery)
    assert house.value("SELECT extract(epoch FROM due_at - now())::float FROM deliveries") > 115


async def test_no_receipt_in_20_seconds_brings_the_next_way_and_a_receipt_does_not(
    house: House, dsn: str
) -> None:
    tells, plain = Stub("aliyun_sms", frozenset({"sent", "delivered"})), Stub("webhook")
    alarm = house.alarm()
    house.delivery(alarm, house.contact("1", "aliyun_sms"), "aliyun_sms")
    house.contact("2", "webhook")
    async with working(dsn, {"aliyun_sms": tells, "webhook": plain}) as delivery:
        await once(delivery)
        await once(delivery)
        assert plain.sent == []
        house.db.execute("UPDATE deliveries SET deadline_at = now() - interval '1 second'")
        await once(delivery)
        await once(delivery)
        assert len(plain.sent) == 1
        house.db.execute("UPDATE deliveries SET deadline_at = now() - interval '1 second'")
        await once(delivery)
    assert (len(tells.sent), len(plain.sent)) == (1, 1)
    assert (
        house.rows("SELECT error FROM deliveries ORDER BY id")[0]["error"] == "No receipt in time."
    )


async def test_the_wall_is_sent_at_once_and_displayed_by_the_receipt_of_the_stream(
    house: House, dsn: str
) -> None:
    alarm = house.alarm()
    house.delivery(alarm, None, "station")
    house.contact("2", "webhook")
    plain = Stub("webhook")
    async with working(dsn) as real:
        assert real._channels is not None
        station = real._channels["station"]
    async with working(dsn, {"station": station, "webhook": plain}) as delivery:
        await once(delivery)
        assert house.states() == ["sent"]
        house.db.execute(
            "INSERT INTO receipts (alarm_id, user_id, kind) VALUES (%s, %s, 'displayed')",
            [alarm, house.nurse],
        )
        await once(delivery)
        assert house.states() == ["displayed"]
        house.db.execute(
            "UPDATE alarms SET handling = 'acknowledged', owner_id = %s WHERE id = %s",
            [house.nurse, alarm],
        )
        await once(delivery)
        assert house.states() == ["acknowledged"]
        assert house.value("SELECT deadline_at FROM deliveries") is None
    assert plain.sent == []


async def test_the_wall_itself_is_displayed_by_a_screen_of_staff_and_not_by_a_relatives(
    house: House, dsn: str
) -> None:
    alarm = house.alarm()
    house.delivery(alarm, None, "station")
    house.db.execute("UPDATE deliveries SET user_id = NULL, state = 'sent'")
    relative = house._id(
        "INSERT INTO users (username, password_hash, role) VALUES ('son', '-', 'family') {}"
    )
    saw = "INSERT INTO receipts (alarm_id, user_id, kind) VALUES (%s, %s, 'displayed')"
    async with working(dsn) as delivery:
        house.db.execute(saw, [alarm, relative])
        await once(delivery)
        assert house.states() == ["sent"]
        house.db.execute(saw, [alarm, house.nurse])
        await once(delivery)
        assert house.states() == ["displayed"]


async def test_the_ladder_calls_and_the_worker_delivers(house: House, dsn: str) -> None:
    async with Provider(recording.wecom).serving() as robot, working(dsn) as delivery:
        house.contact(robot.address, "wecom", robot=True)
        house.alarm()
        async with Database(dsn, role="anxin_worker") as db:
            metrics = escalate.Metrics(CollectorRegistry())
            escalator = escalate.Escalator(db, ZoneInfo("Asia/Shanghai"), metrics)

            async def told() -> bool:
                house.db.execute(
                    "UPDATE escalations SET began_at = began_at - interval '31 seconds',"
                    " due_at = due_at - interval '31 seconds'"
                )
                await escalator.sweep()
                await once(delivery)
                return bool(robot.heard)

            await eventually(told, 10)
    (heard,) = robot.heard
    assert "紧急呼叫" in heard.json["text"]["content"]
    sent = house.rows("SELECT channel, audience FROM deliveries WHERE state = 'sent'")
    assert {"channel": "wecom", "audience": "robot"} in sent
    assert {"channel": "station", "audience": "wall"} in sent


async def test_a_storm_at_a_robot_becomes_one_message_that_names_all_and_no_emergency_waits(
    house: House, dsn: str
) -> None:
    async with Provider(recording.wecom).serving() as stub:
        robot = house.contact(stub.address, "wecom", robot=True)
        alarms = [house.alarm("battery_low", "technical", 1) for _ in range(30)]
        for alarm in alarms:
            house.delivery(alarm, robot, "wecom")
        house.delivery(house.alarm(), robot, "wecom")
        async with working(dsn) as delivery:
            await once(delivery)
            await once(delivery)
    texts = sorted((heard.json["text"]["content"] for heard in stub.heard), key=len)
    assert len(texts) == 2
    assert "紧急呼叫" in texts[0]
    assert "30 条报警" in texts[1]
    assert texts[1].count("电量低") == 30
    assert house.states() == ["sent"] * 31


async def test_calm_notices_gather_when_a_robots_minute_is_full_and_urgent_ones_do_not(
    house: House, dsn: str
) -> None:
    async with Provider(recording.wecom).serving() as stub:
        robot = house.contact(stub.address, "wecom", robot=True)
        for number in range(15):
            house.db.execute(
                "INSERT INTO deliveries"
                " (key, alarm_id, audience, contact_id, channel, state, due_at, sent_at)"
                " VALUES (%s, %s, 'robot', %s, 'wecom', 'sent', now(),"
                " now() - %s * interval '1 s')",
                [f"before-{number}", house.alarm("battery_low", "technical", 1), robot, number],
            )
        calm = house.delivery(house.alarm("battery_low", "technical", 2), robot, "wecom")
        urgent = house.delivery(house.alarm(), robot, "wecom")
        async with working(dsn) as delivery:
            await once(delivery)
            assert len(stub.heard) == 1
            state = "SELECT state, attempts FROM deliveries WHERE id = %s"
            assert house.rows(state, urgent)[0]["state"] == "sent"
            assert house.rows(state, calm)[0] == {"state": "pending", "attempts": 0}
            house.db.execute(
                "UPDATE deliveries SET due_at = now(), sent_at = sent_at - interval '1 minute'"
            )
            await once(delivery)
    assert len(stub.heard) == 2
    assert set(house.states()) == {"sent"}


async def test_quiet_hours_of_a_relative_hold_what_can_wait_and_nothing_else(
    house: House, dsn: str, stub: Provider
) -> None:
    around_now = "(now() AT TIME ZONE 'Asia/Shanghai')::time"
    daughter = house._id(
        "INSERT INTO users (username, password_hash, role) VALUES ('d', '-', 'family') {}", {}
    )
    for user, name in ((daughter, "daughter"), (house.nurse, "nurse")):
        way = house._id(
            "INSERT INTO contacts (user_id, channel, address)"
            " VALUES (%(user)s, 'webhook', %(to)s) {}",
            {"user": user, "to": f"{stub.address}/{name}"},
        )
        # The nurse's own choice counts for nothing: who is on duty is called.
        house.db.execute(
            "INSERT INTO quiet_hours (user_id, from_, until_) VALUES (%s,"
            f" {around_now} - interval '1 hour', {around_now} + interval '1 hour')".encode(),
            [user],
        )
        for kind, class_, priority in (
            ("sos", "emergency", 3), ("water_leak", "safety", 2),
            ("bed_exit_long", "behavioural", 2),
        ):  # fmt: skip
            house.delivery(house.alarm(kind, class_, priority), way)
    async with working(dsn) as delivery:
        await once(delivery)
        assert house.states() == ["sent", "sent", "pending", "sent", "sent", "sent"]
        await once(delivery)
        assert house.states()[2] == "pending"
        # When they are over it goes out.
        house.db.execute(
            f"UPDATE quiet_hours SET from_ = {around_now} + interval '30 minutes',"
            f" until_ = {around_now} + interval '40 minutes'".encode()
        )
        await once(delivery)
        assert house.states() == ["sent"] * 6
        # Who wants to hear of what is urgent only is not told of the rest, day or night.
        house.db.execute(b"UPDATE quiet_hours SET only_urgent = true, from_ = NULL, until_ = NULL")
        way = house.value("SELECT id FROM contacts WHERE user_id = %s", daughter)
        house.delivery(house.alarm("no_activity", "behavioural", 2), way)
        house.delivery(house.alarm("fall", "emergency", 3), way)
        await once(delivery)
    assert house.states()[-2:] == ["cancelled", "sent"]


async def test_a_dead_way_is_shown_alarmed_once_and_recovers(
    house: House, stub: Provider, dsn: str
) -> None:
    contact = house.contact(stub.address)
    stub.answer = lambda _: Reply(None, 410)
    async with working(dsn) as delivery:
        for _ in range(8):
            house.delivery(house.alarm(), contact)
            await once(delivery)
        faults = house.rows("SELECT * FROM alarms WHERE kind = 'device_fault'")
        assert [(one["subject"], one["priority"], one["count"]) for one in faults] == [
            (f"p{house.place}:channel_failing:webhook", 2, 1)
        ]
        assert faults[0]["detail"] == {
            "reason": "channel_failing", "channel": "webhook", "contact_ids": [str(contact)],
        }  # fmt: skip
        assert house.value("SELECT failing_since FROM contacts") is not None
        stub.answer = lambda _: Reply(None, 200)
        house.delivery(house.alarm(), contact)
        await once(delivery)
    assert house.value("SELECT failing_since FROM contacts") is None
    assert house.value("SELECT condition FROM alarms WHERE kind = 'device_fault'") == "recovered"


async def test_two_workers_share_the_work_and_nobody_is_told_twice(
    house: House, stub: Provider, dsn: str
) -> None:
    contact = house.contact(stub.address)
    stub.answer = lambda _: Reply(None, 200, delay=0.05)
    for _ in range(60):
        house.delivery(house.alarm(), contact)
    async with working(dsn) as one, working(dsn) as other:

        async def all_sent() -> bool:
            await asyncio.gather(one.tick(), other.tick())
            return set(house.states()) == {"sent"}

        await eventually(all_sent, 20)
    keys = [heard.json["key"] for heard in stub.heard]
    assert len(keys) == len(set(keys)) == 60


async def test_what_a_dead_worker_held_is_sent_by_another_at_once_with_the_same_key(
    house: House, dsn: str
) -> None:
    never = asyncio.Event()
    stuck, taker = Stub("webhook", act=never.wait), Stub("webhook")
    house.delivery(house.alarm(), house.contact("x"))
    async with (
        working(dsn, {"webhook": taker}) as living,
        working(dsn, {"webhook": stuck}) as dying,
    ):
        await dying.tick()
        await eventually(lambda: stuck.sent)
        assert await once(living) == 0
        # The database sees a killed process by the end of its connection.
        assert dying._sign is not None
        await dying._sign.close()

        async def taken() -> bool:
            return await once(living) == 1

        await eventually(taken, 5)
        for task in dying._hands:
            task.cancel()
        dying._hands.clear()
    assert [key for key, _ in stuck.sent] == [key for key, _ in taker.sent]
    assert house.states() == ["sent"]


async def test_a_worker_whose_lock_was_lost_takes_another_and_goes_on(
    house: House, stub: Provider, dsn: str
) -> None:
    contact = house.contact(stub.address)
    async with working(dsn) as delivery:
        await once(delivery)
        before = delivery._worker
        house.db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'anxin delivery' AND datname = current_database()"
        )
        house.delivery(house.alarm(), contact)
        assert await once(delivery) == 1
        assert delivery._worker != before
    assert house.states() == ["sent"]
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 4155023"
    await eventually(lambda: house.value(held) == 0)


async def test_a_slow_provider_does_not_hold_up_an_emergency(house: House, dsn: str) -> None:
    release = asyncio.Event()
    slow, quick = Stub("email", act=release.wait), Stub("webhook")
    contact, other = house.contact("a", "email"), house.contact("b", "webhook")
    for _ in range(40):
        house.delivery(house.alarm("battery_low", "technical", 1), contact, "email")
    async with working(dsn, {"email": slow, "webhook": quick}) as delivery:
        await delivery.tick()
        await delivery.tick()
        await eventually(lambda: len(slow.sent) >= 20)
        house.delivery(house.alarm(), other)

        async def told() -> bool:
            await delivery.tick()
            return bool(quick.sent)

        await eventually(told, 5)
        release.set()


async def test_a_defect_in_a_channel_is_a_failed_attempt_and_stops_nobody(
    house: House, dsn: str
) -> None:
    async def explode() -> None:
        raise KeyError("surprise")

    bad, good = Stub("email", act=explode), Stub("webhook")
    house.delivery(house.alarm(), house.contact("a", "email"), "email")
    house.delivery(house.alarm("fall"), house.contact("b"))
    async with working(dsn, {"email": bad, "webhook": good}) as delivery:
        await once(delivery)
    assert house.states() == ["pending", "sent"]
