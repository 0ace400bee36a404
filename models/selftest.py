"""The self-test: a synthetic SOS goes the whole way, from a device's publish to a station's screen.

Every place with a station on duty has a test bed with a button of its own. Its event enters by the
real front door and takes every step that a real one takes; what it raises makes no sound, calls
nobody and is closed at once. When it does not arrive, that is a fault that people must hear of.
"""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Final

from anxin.alarms import fault_subject
from anxin.config import Address
from anxin.db.intake import Raise, Recover
from anxin.db.pool import Database
from anxin.db.stations import (
    TestAlarm,
    clear_self_tests,
    due_self_tests,
    enrol_self_test,
    finish_self_test,
    self_test_alarm,
    self_test_run,
)
from anxin.device_secret import new_secret
from anxin.errors import AnxinError
from anxin.logs import log
from anxin.rules import HIGH
from anxin.stations import SELF_TEST_EVERY, self_test_device

PUBLISH_SECONDS: Final = 15.0
DISPLAY_SECONDS: Final = 30.0
LONGEST: Final = timedelta(seconds=60)
"""A run that goes on for longer has a worker that stands still: others go on without it."""
LOOK_SECONDS: Final = 0.25
_log = log(__name__)


class NotPublished(AnxinError):
    """The MQTT front door did not take the test event."""


class SelfTests:
    """The runs of one worker; secrets of the test devices are known to it alone."""

    def __init__(self, database: Database, mqtt: str) -> None:
        """Publish to the listener at `mqtt`, host:port, from this machine."""
        self._database = database
        address = Address.parse(mqtt)
        self._host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
        self._port = address.port
        self._secrets: dict[int, tuple[str, int]] = {}

    async def tick(self) -> int:
        """Run the self-tests that are due, all at once; return how many were run.

        Before, clear up after workers that were killed in theirs: such a test is due again now.
        """
        left = await clear_self_tests(self._database, LONGEST)
        if left:
            _log.warning("self_tests_interrupted", runs=left)
        places = await due_self_tests(self._database, SELF_TEST_EVERY)
        # Each to its end: what goes wrong at one place is no reason to leave the others.
        ends = await asyncio.gather(*map(self.run, places), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return sum(end is not None for end in ends)

    async def run(self, place_id: int) -> bool | None:
        """Run one self-test; return whether it was shown, None when another worker runs it."""
        async with self_test_run(self._database, place_id, SELF_TEST_EVERY) as run_id:
            return None if run_id is None else await self._test(place_id, run_id)

    async def _test(self, place_id: int, run_id: int) -> bool | None:
        alarm: TestAlarm | None = None
        failed: str | None = None
        try:
            await self._publish(place_id, f"selftest-{run_id}")
        except NotPublished as error:
            failed = "not_acknowledged"
            _log.warning("self_test_not_published", place_id=place_id, error=str(error))
        else:
            alarm = await self._shown(place_id)
            if alarm is None:
                failed = "no_alarm"
            elif alarm.displayed_at is None:
                failed = "not_displayed"
        tells = await self._fault(place_id, failed)
        finished = await finish_self_test(
            self._database, run_id, alarm=alarm, failed=failed, tells=tells
        )
        _log.info("self_test", place_id=place_id, run=run_id, failed=failed, finished=finished)
        return failed is None if finished else None

    async def _shown(self, place_id: int) -> TestAlarm | None:
        """Return the alarm once it was shown, or as it is when that takes too long."""
        alarm: TestAlarm | None = None
        try:
            async with asyncio.timeout(DISPLAY_SECONDS):
                while alarm is None or alarm.displayed_at is None:
                    alarm = await self_test_alarm(self._database, place_id) or alarm
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            return alarm
        return alarm

    async def _fault(self, place_id: int, failed: str | None) -> Raise | Recover:
        """Return what is told of a run: the fault of the test bed, or that it is over."""
        bed_id = (await self._secret(place_id))[1]
        subject = fault_subject(bed_id, "selftest_failed")
        if failed is None:
            return Recover(subject, "device_fault", "selftest")
        now_us = round(datetime.now(UTC).timestamp() * 1_000_000)
        detail = {"reason": "selftest_failed", "step": failed}
        return Raise(
            subject, None, bed_id, None, "device_fault", "technical", HIGH, now_us, False, 1,
            detail, "selftest",
        )  # fmt: skip

    async def _publish(self, place_id: int, event_id: str) -> None:
        """Press the button; a secret that is not known, or no longer taken, is made anew."""
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                refused = False
                while True:
                    secret, _ = await self._secret(place_id, renew=refused)
                    try:
                        await press(
                            self._host, self._port, self_test_device(place_id), secret, event_id
                        )
                    except PermissionError:
                        # Another worker has renewed it, or ingest has not yet heard of ours.
                        if not refused:
                            refused = True
                            continue
                        refused = False
                    except (OSError, asyncio.IncompleteReadError):
                        pass
                    else:
                        return
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise NotPublished(
                f"No acknowledgement from MQTT at {self._host}:{self._port} within "
                f"{PUBLISH_SECONDS:.0f} s. Is ANXIN_MQTT where this worker reaches ingest?"
            ) from None

    async def _secret(self, place_id: int, *, renew: bool = False) -> tuple[str, int]:
        """Return the secret of the place's test device, and the id of its bed."""
        if renew or place_id not in self._secrets:
            secret, salt, secret_hash = new_secret()
            bed_id = await enrol_self_test(
                self._database, place_id, salt=salt, secret_hash=secret_hash
            )
            self._secrets[place_id] = secret, bed_id
        return self._secrets[place_id]


async def press(host: str, port: int, device: str, secret: str, event_id: str) -> None:
    """Send one SOS as a device, MQTT 3.1.1, and return when it is acknowledged.

    Raise PermissionError when the secret is refused, OSError or IncompleteReadError when the
    connection is.
    """
    event = json.dumps({"id": event_id, "type": "sos", "detail": {"selftest": True}}).encode()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        name = b"\x00\x04MQTT\x04\xc2\x00\x1e"  # level 4; user name, password, clean; 30 s
        who = _text(device)
        writer.write(_packet(0x10, name + who + who + _text(secret)))
        answer = await reader.readexactly(4)
        if answer[:2] != b"\x20\x02":
            raise ConnectionError("This is no MQTT server.")
        if answer[3] in {4, 5}:
            raise PermissionError("The secret of the test device was refused.")
        if answer[3]:
            raise ConnectionError(f"The server is not ready ({answer[3]}).")
        topic = _text(f"anxin/v1/{device}/event")
        writer.write(_packet(0x32, topic + b"\x00\x01" + event))
        if await reader.readexactly(4) != b"\x40\x02\x00\x01":
            raise ConnectionError("The event was not acknowledged.")
        writer.write(b"\xe0\x00")
        await writer.drain()
    finally:
        writer.close()


def _packet(first: int, body: bytes) -> bytes:
    length = (
        bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
    )
    return bytes([first]) + length + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw
