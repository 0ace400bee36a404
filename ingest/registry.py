"""The devices of this process: who they are, whose they are, and the state of their live rules.

Filled on demand from the database and renewed when it says that a device changed.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import numpy as np

from anxin.db import registry as cards_of
from anxin.db.pool import Database
from anxin.db.registry import Card, Link
from anxin.device_secret import Proof, proof_of
from anxin.errors import DatabaseUnavailable
from anxin.rules import RULE_ROW, SPOT_KINDS, Live, judge, limits_of
from anxin.vitals import COLUMN, METRICS, PRESENCE
from ingest.inbound import NOT_LOADED, Device
from ingest.remembered import Remembered

MOST_AT_ONCE: Final = 1_000
"""Devices loaded by one query: bounds how long it takes and how long it holds up the event loop."""
ASK_SECONDS: Final = 2.0
"""So long the database is asked for a device before what is remembered of it counts."""
_RECENT = ("hr", "rr", "spo2", "temp", "sbp", "battery")


def _us(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1_000_000)


class Registry:
    """Devices by id; lists and arrays by row."""

    def __init__(self, db: Database, remembered: Remembered | None = None) -> None:
        """Start empty; without the database only what is `remembered` gets in."""
        self._db = db
        self._remembered = remembered
        self.recalled: dict[str, Device] = {}
        """Devices let in from memory, or behind a gateway, that are not loaded yet."""
        self.live = Live()
        self.devices: dict[str, Device] = {}
        self.by_key: dict[int, Device] = {}
        self.cards: list[Card] = []
        self.absent_us: list[int] = []
        self.present_us: list[int] = []
        self.active_us: list[int] = []
        self.last_auto_us: dict[int, int] = {}
        self._wanted: dict[str, asyncio.Future[Device | None]] = {}
        self._wake = asyncio.Event()
        self._to_look_at: list[Device] = []
        self._overlaps: set[int] = set()
        self._gateways: set[int] = set()
        self._links: dict[int, tuple[Device, Device]] = {}

    def card(self, device: Device) -> Card:
        """Return what is known of a device."""
        return self.cards[device.row]

    async def find(self, device_id: str) -> Device | None:
        """Return the device of this id, or None; raise DatabaseUnavailable."""
        known = self.devices.get(device_id)
        if known is not None:
            return known
        future = self._wanted.get(device_id)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._wanted[device_id] = future
            self._wake.set()
        return await asyncio.shield(future)

    def linked(self, key: int) -> tuple[Device, Device] | None:
        """Return a device that stands behind a gateway, and the gateway; None when it does not."""
        return self._links.get(key)

    async def authenticate(
        self, device_id: str, secret: bytes | None, issued_at: datetime | None = None
    ) -> Device | None:
        """Return the device when its secret or certificate is right and it was not revoked.

        While the database is away a device that is remembered gets in without being loaded;
        raise DatabaseUnavailable for one that is not.
        """
        try:
            async with asyncio.timeout(ASK_SECONDS):
                device = await self.find(device_id)
        except (DatabaseUnavailable, TimeoutError):
            recalled = self._recall(device_id, secret, issued_at)
            if recalled is not None:
                return recalled
            device = await self.find(device_id)
        if device is None:
            return None
        proof = self._proof(device, secret, issued_at)
        if proof is None:
            # A secret renewed a moment ago may not have reached this process: ask before refusing.
            # Its older connections are looked at by whoever calls `renew` next.
            self._to_look_at += await self._read_again([device.key])
            proof = self._proof(device, secret, issued_at)
        if proof is None:
            return None
        if proof == "secret" and self.cards[device.row].old_until is not None:
            await self._end_overlap(device)
        return device

    def recognise(
        self, device_id: str, secret: bytes | None, issued_at: datetime | None
    ) -> Device | None:
        """Return the device when it is loaded and this opens it; asks nobody."""
        device = self.devices.get(device_id)
        return device if device and self._proof(device, secret, issued_at) else None

    def still_opens(self, device: Device, secret: bytes | None, issued_at: datetime | None) -> bool:
        """Tell whether a connection that these let in may go on."""
        if device.row == NOT_LOADED:
            return not device.revoked
        return self._proof(device, secret, issued_at) is not None

    def _recall(
        self, device_id: str, secret: bytes | None, issued_at: datetime | None
    ) -> Device | None:
        if self._remembered is None or device_id in self.devices:
            return None
        key = self._remembered.recall(device_id, secret, issued_at)
        if key is None:
            return None
        device = self.recalled.get(device_id)
        if device is None:
            device = self.recalled[device_id] = Device(key.id, key.key, NOT_LOADED)
        for behind in self._remembered.behind(key.key):
            self._link(behind.key, behind.id, device)
        return device

    def _proof(
        self, device: Device, secret: bytes | None, issued_at: datetime | None
    ) -> Proof | None:
        card = self.cards[device.row]
        if card.revoked or device.revoked:
            return None
        return proof_of(card, secret, issued_at, datetime.now(UTC))

    async def _end_overlap(self, device: Device) -> None:
        """The new secret was used: end the time of the old one, here and in every process."""
        try:
            await cards_of.end_overlap(self._db, device.key, self.cards[device.row].secret_hash)
        except DatabaseUnavailable:
            return  # the next connection, or the clock, ends it
        self._to_look_at += await self._read_again([device.key])

    async def serve(self) -> None:
        """Answer `find`: what is asked while one query runs goes into the next."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            wanted = dict(islice(self._wanted.items(), MOST_AT_ONCE))
            for device_id in wanted:
                del self._wanted[device_id]
            if self._wanted:
                self._wake.set()
            # Who gave up waiting and asked again may ask for what was loaded meanwhile.
            missing = [device_id for device_id in wanted if device_id not in self.devices]
            try:
                await self._load(await cards_of.cards_by_id(self._db, missing))
            except DatabaseUnavailable as error:
                for future in wanted.values():
                    if not future.done():
                        future.set_exception(error)
                        future.exception()  # who asked may be gone
                continue
            for device_id, future in wanted.items():
                if device_id in self.recalled and device_id not in self.devices:
                    self._dismiss(self.recalled.pop(device_id))
                if not future.done():
                    future.set_result(self.devices.get(device_id))

    def _dismiss(self, device: Device) -> None:
        """End the connections of a device that should not have been let in, at the next `renew`."""
        device.revoked = True
        self._to_look_at.append(device)

    async def renew(self, keys: Collection[int]) -> list[Device]:
        """Read changed devices again; return those whose connections may have to end."""
        # Who was let in from memory is looked at now, also when it has nothing to say.
        await asyncio.gather(*map(self.find, list(self.recalled)))
        changed = await self._read_again(keys)
        if keys and self._gateways:
            await self._renew_links(keys)
        earlier, self._to_look_at = self._to_look_at, []
        return earlier + changed + self._out_of_overlap(datetime.now(UTC))

    def _out_of_overlap(self, now: datetime) -> list[Device]:
        """Return, once, the devices whose old secret has had its time."""
        over = []
        for key in list(self._overlaps):
            device = self.by_key.get(key)
            until = None if device is None else self.cards[device.row].old_until
            if until is None or until <= now:
                self._overlaps.discard(key)
                if device is not None:
                    over.append(device)
        return over

    async def _renew_links(self, keys: Iterable[int]) -> None:
        """Read again for whom gateways may speak: these devices, and those behind them."""
        asked = set(keys)
        found = await cards_of.links(self._db, sorted(asked))
        for key in asked - {one.key for one in found}:
            self._unlink(key)
        self._apply_links(found)

    def _apply_links(self, links: Iterable[Link]) -> None:
        for one in links:
            gateway = None if one.gateway_key is None else self.by_key.get(one.gateway_key)
            if gateway is None:
                self._unlink(one.key)
            else:
                self._link(one.key, one.id, gateway)

    def _link(self, key: int, device_id: str, gateway: Device) -> None:
        known = self._links.get(key)
        if known is not None and known[1] is gateway and not known[0].revoked:
            return
        self._unlink(key)
        child = self.devices.get(device_id) or self.recalled.get(device_id)
        if child is None:
            child = self.recalled[device_id] = Device(device_id, key, NOT_LOADED)
        gateway.children[device_id] = child
        self._links[key] = child, gateway

    def _unlink(self, key: int) -> None:
        child, gateway = self._links.pop(key, (None, None))
        if child is not None and gateway is not None:
            gateway.children.pop(child.id, None)

    async def _read_again(self, keys: Iterable[int]) -> list[Device]:
        known = [key for key in keys if key in self.by_key]
        if not known:
            return []
        changed = []
        found = {card.key: card for card in await cards_of.cards_by_key(self._db, known)}
        for key in known:
            device = self.by_key[key]
            changed.append(device)
            old, card = self.cards[device.row], found.get(key)
            gone = card is None or card.revoked or card.secret_hash != old.secret_hash
            if gone and self._remembered is not None:
                self._remembered.forget(device.id)
            if card is None:
                device.revoked = True
                del self.devices[device.id], self.by_key[key]
                continue
            self._note_kind(card)
            device.revoked = card.revoked
            self.cards[device.row] = card
            if card.resident_id != old.resident_id:
                self.live.forget(device.row)  # another person: nothing of the last one counts
            self._set_rules(device.row, card)
        return changed

    async def rebuild(self, devices: Sequence[Device]) -> None:
        """Set these devices' rules back to what the database holds."""
        cards = await cards_of.cards_by_key(self._db, [device.key for device in devices])
        rows = {device.key: device.row for device in devices}
        for card in cards:
            row = rows[card.key]
            self.cards[row] = card
            self.live.forget(row)
            self._take_since(row, card)
            self._set_rules(row, card)
        await self._rebuild(cards, rows)

    async def _load(self, cards: Sequence[Card]) -> None:
        """Take up devices with the state that their rules had when they were last heard."""
        rows: dict[int, int] = {}
        for card in cards:
            rows[card.key] = row = self.live.add()
            self.cards.append(card)
            for since in (self.absent_us, self.present_us, self.active_us):
                since.append(0)
            self._take_since(row, card)
            self._set_rules(row, card)
        # Should the database go away here, these rows stay unused: the devices are asked for again.
        await self._rebuild(cards, rows)
        gateways = [card.key for card in cards if card.kind == "gateway"]
        links = await cards_of.links(self._db, gateways) if gateways else []
        for card in cards:
            device = self._taken_up(card)
            device.row, device.revoked = rows[card.key], card.revoked
            self.devices[card.id] = self.by_key[card.key] = device
            self._note_kind(card)
        self._apply_links(links)

    def _note_kind(self, card: Card) -> None:
        if card.kind == "gateway":
            self._gateways.add(card.key)
        if card.old_until is not None:
            self._overlaps.add(card.key)

    def _taken_up(self, card: Card) -> Device:
        """Return the object that connections hold already, if the device was let in from memory."""
        device = self.recalled.pop(card.id, None)
        if device is None:
            return Device(card.id, card.key, NOT_LOADED)
        if device.key != card.key:  # deleted, and another one made under its id
            self._dismiss(device)
            return Device(card.id, card.key, NOT_LOADED)
        self._to_look_at.append(device)
        return device

    def _take_since(self, row: int, card: Card) -> None:
        self.absent_us[row] = _us(card.absent_since)
        self.present_us[row] = _us(card.present_since)
        self.active_us[row] = _us(card.active_at)

    def _set_rules(self, row: int, card: Card) -> None:
        self.live.set_limits(row, limits_of(card.limits, spo2_scale=card.spo2_scale))
        self.live.busy[row] = True
        self.live.spot[row] = card.kind in SPOT_KINDS

    async def _rebuild(self, cards: Sequence[Card], rows: dict[int, int]) -> None:
        """Run the last minutes through the rules, for what they remember and not for alarms.

        A committed reading had its alarm committed with it, so nothing is raised a second time.
        """
        live = self.live
        present = await cards_of.open_alarms(self._db, [card.subject for card in cards])
        by_subject: dict[str, list[int]] = {}
        for card in cards:
            by_subject.setdefault(card.subject, []).append(rows[card.key])
        for alarm in present:
            if (number := RULE_ROW.get(alarm["kind"])) is not None:
                for row in by_subject[alarm["subject"]]:
                    live.fired[number, row] = alarm["priority"]
                    live.fired_us[number, row] = _us(alarm["raised_at"])
        recent = await cards_of.recent_telemetry(self._db, list(rows))
        if recent:
            values = np.full((len(recent), len(METRICS)), np.nan)
            for name in _RECENT:
                values[:, COLUMN[name]] = [
                    np.nan if one[name] is None else one[name] for one in recent
                ]
            device_rows = np.array([rows[one["device_key"]] for one in recent], np.int64)
            presence = [-1 if one["presence"] is None else one["presence"] for one in recent]
            order = np.argsort(device_rows, kind="stable")
            judge(
                live,
                device_rows[order],
                np.array([one["ts_us"] for one in recent], np.int64)[order],
                values[order],
                np.array(presence, np.int64)[order],
                np.ones(len(recent), np.bool_),
            )
        for card in cards:
            self._restore_newest(card, rows[card.key])

    def _restore_newest(self, card: Card, row: int) -> None:
        for name, (value, at_ms) in (card.metrics or {}).items():
            if name in COLUMN:
                last = self.live.last_us[COLUMN[name]]
                last[row] = max(int(last[row]), at_ms * 1000)
            elif name == "presence":
                self.live.presence[row] = PRESENCE.index(value)
