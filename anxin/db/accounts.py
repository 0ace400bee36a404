"""Accounts: what a login is compared with, second factors, known devices, and failed attempts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from anxin.db.pool import Connection, Database, blocks
from anxin.errors import AnxinError, Conflict
from anxin.seal import DataKeys, Place
from anxin.totp import hash_recovery_code, matching_step

_SQL: Final = blocks("accounts")
WINDOW: Final = timedelta(hours=1)
FREE_PER_ACCOUNT: Final = 20
"""Failures within the window: from all unknown devices together, and from each known one."""
FREE_PER_ADDRESS: Final = 100
"""Failures within the window from unknown devices of one address, at whatever accounts."""
DEVICE_LIFETIME: Final = timedelta(days=400)
"""Longer than that no browser keeps a cookie."""
MOST_DEVICES: Final = 50


class TooManyGuesses(AnxinError):
    """Too many failed logins. Wait, or log in on a device on which you have done so before."""

    def __init__(self, retry_after: timedelta) -> None:
        """Say after how long it may be tried again."""
        super().__init__()
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that is under way; it counts as failed until it is forgiven."""

    id: int
    username: str
    mark: bytes | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login is compared with."""

    id: int
    password_hash: str
    password_expires_at: datetime | None
    """A one-time password is good until then."""
    second_factor: bool
    """Whether a code is asked for as well."""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How many users' secrets are sealed with a master key."""

    master_id: str
    people: int


async def known_mark(
    database: Database, username: str, mark: bytes | None, now: datetime
) -> bytes | None:
    """Return the mark of a device if this user has logged in with it before."""
    if mark is None:
        return None
    row = await database.fetch_one(
        _SQL["is_known"],
        {"username": username, "mark": mark, "now": now, "lifetime": DEVICE_LIFETIME},
    )
    return mark if row and row["known"] else None


async def note_attempt(
    database: Database, username: str, *, address: str, mark: bytes | None, now: datetime
) -> Attempt:
    """Note a login that may fail, before anything is compared; raise TooManyGuesses.

    `mark` is that of a known device, or None. What is refused here is not counted, and is told
    alike for names that there are and names that there are not.
    """
    network = _network(address)
    parameters = {"username": username, "address": network, "mark": mark, "now": now,
                  "window": WINDOW}  # fmt: skip
    async with database.transaction() as connection:
        await connection.execute(_SQL["lock"], {"of": f"account {username.lower()}"})
        await _refuse(connection, "last_spared", parameters | {"free": FREE_PER_ACCOUNT})
        if mark is None:
            await connection.execute(_SQL["lock"], {"of": f"address {network}"})
            await _refuse(connection, "last_spared_from", parameters | {"free": FREE_PER_ADDRESS})
        row = await (await connection.execute(_SQL["note"], parameters)).fetchone()
    return Attempt(row["id"] if row else 0, username, mark)


async def forgive(database: Database, attempt: Attempt) -> None:
    """Take an attempt back that was right after all."""
    parameters = {"id": attempt.id, "username": attempt.username, "mark": attempt.mark}
    await database.execute(_SQL["forgive"], parameters)


async def know_device(
    database: Database, user_id: int, *, old: bytes | None, new: bytes, now: datetime
) -> None:
    """Remember that a user has logged in with a device, whose mark was `old` and is now `new`."""
    parameters = {"user_id": user_id, "old": old, "new": new, "now": now, "most": MOST_DEVICES}
    async with database.transaction() as connection:
        if old is not None:
            await connection.execute(_SQL["move_device"], parameters)
        await connection.execute(_SQL["know_device"], parameters)


async def credentials(database: Database, username: str) -> Credentials | None:
    """Return what the login of an enabled user is compared with, or None."""
    row = await database.fetch_one(_SQL["credentials"], {"username": username})
    return Credentials(**row) if row else None


async def strengthen(database: Database, known: Credentials, new_hash: str) -> None:
    """Replace a hash by a stronger one of the same password."""
    await database.execute(
        _SQL["strengthen"], {"user_id": known.id, "old": known.password_hash, "new": new_hash}
    )


async def set_password(database: Database, user_id: int, password_hash: str) -> None:
    """Store the password that a user has chosen."""
    await database.execute(
        _SQL["set_password"], {"user_id": user_id, "password_hash": password_hash}
    )


async def begin_factor(database: Database, keys: DataKeys, user_id: int, secret: bytes) -> None:
    """Keep the secret of a second factor until it is confirmed; raise Conflict when one holds."""
    master_id, sealed = keys.seal(secret, _place(user_id))
    parameters = {"user_id": user_id, "master_id": master_id, "secret": sealed}
    if not await database.execute(_SQL["begin_factor"], parameters):
        raise Conflict("You have a second factor. Remove it first (DELETE /api/v1/me/totp).")


async def confirm_factor(
    database: Database, keys: DataKeys, user_id: int, code: str, now: datetime
) -> bool:
    """Let a begun second factor hold if this is its code; raise Conflict when there is none."""
    row = await database.fetch_one(_SQL["factor"], {"user_id": user_id})
    if row is None or row["confirmed"]:
        raise Conflict("There is no second factor to confirm. Begin with POST /api/v1/me/totp.")
    return await _take_step(database, keys, user_id, code, now)


async def take_code(
    database: Database, keys: DataKeys, user_id: int, code: str, now: datetime
) -> bool:
    """Tell whether this is a user's code of now or a recovery code; either is taken once."""
    if await _take_step(database, keys, user_id, code, now):
        return True
    parameters = {"user_id": user_id, "code_hash": hash_recovery_code(code)}
    return await database.execute(_SQL["take_code"], parameters) == 1


async def keep_recovery_codes(database: Database, user_id: int, codes: Sequence[str]) -> None:
    """Store the hashes of new recovery codes; former ones are void."""
    hashes = [hash_recovery_code(code) for code in codes]
    await database.execute(_SQL["keep_codes"], {"user_id": user_id, "hashes": hashes})


async def recovery_codes_left(database: Database, user_id: int) -> int:
    """Return how many recovery codes are not used yet."""
    row = await database.fetch_one(_SQL["codes_left"], {"user_id": user_id})
    return int(row["left"]) if row else 0


async def end_factor(database: Database, user_id: int) -> bool:
    """Remove a second factor and its recovery codes; tell whether there was one."""
    return await database.execute(_SQL["end_factor"], {"user_id": user_id}) == 1


async def key_uses(database: Database) -> list[KeyUse]:
    """Return how many users' secrets depend on which master key."""
    return [KeyUse(**row) for row in await database.fetch(_SQL["uses"])]


async def stale(database: Database, keys: DataKeys, *, after: int, limit: int) -> list[int]:
    """Return users after an id whose secret is not sealed with the newest master key."""
    parameters = {"master_id": keys.newest_master, "after": after, "limit": limit}
    return [row["user_id"] for row in await database.fetch(_SQL["stale"], parameters)]


async def reseal(database: Database, keys: DataKeys, user_ids: Sequence[int]) -> int:
    """Seal these users' secrets with the newest master key, in one transaction; return how many.

    Raise KeyUnknown or SealBroken.
    """
    done = 0
    async with database.transaction() as connection:
        for user_id in user_ids:
            held = await connection.execute(_SQL["hold"], {"user_id": user_id})
            row = await held.fetchone()
            if row is None:
                continue
            secret = keys.open(row["master_id"], bytes(row["secret"]), _place(user_id))
            master_id, sealed = keys.seal(secret, _place(user_id))
            parameters = {"user_id": user_id, "master_id": master_id, "secret": sealed}
            done += (await connection.execute(_SQL["reseal"], parameters)).rowcount
    return done


async def _refuse(connection: Connection, block: str, parameters: dict[str, object]) -> None:
    row = await (await connection.execute(_SQL[block], parameters)).fetchone()
    if row is not None:
        now = parameters["now"]
        assert isinstance(now, datetime)  # noqa: S101  # put there by the only caller
        raise TooManyGuesses(row["at"] + WINDOW - now)


async def _take_step(
    database: Database, keys: DataKeys, user_id: int, code: str, now: datetime
) -> bool:
    row = await database.fetch_one(_SQL["factor"], {"user_id": user_id})
    if row is None:
        return False
    secret = keys.open(row["master_id"], bytes(row["secret"]), _place(user_id))
    step = matching_step(secret, code.replace(" ", ""), now, after=row["last_step"])
    if step is None:
        return False
    return await database.execute(_SQL["take_step"], {"user_id": user_id, "step": step}) == 1


def _place(user_id: int) -> Place:
    return Place("second_factors", "secret", str(user_id))


def _network(address: str) -> str:
    """Return what one guesser has: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(IPv6Network((int(parsed), 64), strict=False))
    return str(parsed)
