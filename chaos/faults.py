"""What can go wrong, and how it is made to: one entry of the catalogue per kind and target."""

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chaos.platform import ROUTES, SERVICES, Platform
from chaos.proxy import CALM, Way, Weather

WEATHERS: Final = {
    "delay": Weather(delay_seconds=0.2),
    "nothing goes up": Weather(held=frozenset({Way.UP})),
    "nothing comes down": Weather(held=frozenset({Way.DOWN})),
    "nothing passes": Weather(held=frozenset(Way)),
    "cut after 2,000 bytes": Weather(cut_after_bytes=2_000),
    "refused": Weather(refused=True),
}
"""Weather that a route can have for a while."""

_VANISHING: Final = {"half-open: client gone": Way.UP, "half-open: server gone": Way.DOWN}


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault, and the role or route that it hits."""

    kind: str
    target: str

    @property
    def stops_timers(self) -> bool:
        """Whether the escalation may wait for its end: it hits the worker or its database."""
        return self.target in {"worker", "postgres", "database", "spool", "tree"}

    def __str__(self) -> str:
        """Name it for a person."""
        return f"{self.kind} · {self.target}"


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault that was made: from when to when, and when the platform was itself again."""

    fault: Fault
    pids: tuple[int, ...]
    began_at: datetime
    recovered_at: datetime
    silence_seconds: float = 0.0
    """The longest time without any acknowledgement, over all devices, that went with it."""


KILLS: Final = tuple(Fault("kill -9", role) for role in (*SERVICES, "postgres", "tree"))
FREEZES: Final = tuple(Fault("SIGSTOP", role) for role in (*SERVICES, "postgres"))
RESTARTS: Final = (Fault("restart", "postgres"),)
NETWORK: Final = tuple(
    Fault(kind, route) for route in ROUTES for kind in ("reset", *WEATHERS, *_VANISHING)
)
CLOCKS: Final = (Fault("clock +1 h", "services"), Fault("clock -1 h", "services"))
FULL_DISK: Final = Fault("disk full, database away", "spool")
CATALOGUE: Final = (*KILLS, *FREEZES, *RESTARTS, *NETWORK, *CLOCKS, FULL_DISK)


def plan(dice: random.Random, *, with_full_disk: bool, with_clock: bool) -> list[Fault]:
    """Return the whole catalogue in an order in which each family soon comes up."""
    families = [list(family) for family in (KILLS, FREEZES, RESTARTS, NETWORK)]
    if with_full_disk:
        families.append([FULL_DISK])
    if with_clock:
        families.append(list(CLOCKS))
    placed = []
    for family in families:
        dice.shuffle(family)
        placed += [((n + dice.random()) / len(family), fault) for n, fault in enumerate(family)]
    # Every family begins early, whatever its size, so that a short run has met all of them.
    firsts = [family[0] for family in families]
    dice.shuffle(firsts)
    placed.sort(key=lambda one: one[0])
    return firsts + [fault for _, fault in placed if fault not in firsts]


async def inject(platform: Platform, fault: Fault, hold_seconds: float) -> tuple[int, ...]:
    """Make a fault, hold it, undo it, and return the processes that it hit.

    Returns as soon as what was hit can work again: processes run, the database answers.
    """
    since = datetime.now(UTC)
    pids = await _MAKERS.get(fault.kind, _bad_weather)(platform, fault, hold_seconds)
    if fault.target in {"postgres", "database", "spool", "tree"}:
        await platform.database_answers()
    if fault.kind == "kill -9" and fault.target in {"worker", "tree"}:
        await platform.worker_is_at_work(since.isoformat())
    return tuple(pids)


@contextmanager
def frozen(platform: Platform, role: str) -> Iterator[list[int]]:
    """Stop every process of a role during the block; give their ids."""
    pids = platform.signal(role, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in reversed(pids):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue


async def _kill(platform: Platform, fault: Fault, _hold_seconds: float) -> list[int]:
    if fault.target == "tree":
        return await platform.kill_tree()
    pids = platform.signal(fault.target, signal.SIGKILL)
    await platform.replaced(fault.target, pids)
    return pids


async def _freeze(platform: Platform, fault: Fault, hold_seconds: float) -> list[int]:
    with frozen(platform, fault.target) as pids:
        await asyncio.sleep(hold_seconds)
    return pids


async def _restart(platform: Platform, _fault: Fault, _hold_seconds: float) -> list[int]:
    pids = platform.ask_postgres_to_restart()
    await platform.replaced("postgres", pids)
    return pids


async def _reset(platform: Platform, fault: Fault, _hold_seconds: float) -> list[int]:
    platform.routes[fault.target].reset()
    return []


async def _vanish(platform: Platform, fault: Fault, hold_seconds: float) -> list[int]:
    route = platform.routes[fault.target]
    route.vanish(_VANISHING[fault.kind])
    try:
        await asyncio.sleep(hold_seconds)
    finally:
        route.bury()
    return []


async def _bad_weather(platform: Platform, fault: Fault, hold_seconds: float) -> list[int]:
    route = platform.routes[fault.target]
    route.set(WEATHERS[fault.kind])
    try:
        await asyncio.sleep(hold_seconds)
    finally:
        route.set(CALM)
    return []


async def _jump(platform: Platform, fault: Fault, hold_seconds: float) -> list[int]:
    platform.clock.set(3600 if "+" in fault.kind else -3600)
    try:
        await asyncio.sleep(hold_seconds)
    finally:
        platform.clock.set(0)
    return []


async def _fill_the_disk(platform: Platform, _fault: Fault, hold_seconds: float) -> list[int]:
    """Fill the spool's disk to the last page while no service reaches the database."""
    async with _balloon(platform):
        return await _bad_weather(platform, Fault("refused", "database"), hold_seconds)


@asynccontextmanager
async def _balloon(platform: Platform) -> AsyncIterator[None]:
    ballast = platform.spool / "ballast"
    free = shutil.disk_usage(platform.spool).free
    await asyncio.to_thread(ballast.write_bytes, bytes(max(0, free - 4096)))
    try:
        yield
    finally:
        ballast.unlink()


_MAKERS: Final[dict[str, Callable[[Platform, Fault, float], Awaitable[list[int]]]]] = {
    "kill -9": _kill,
    "SIGSTOP": _freeze,
    "restart": _restart,
    "reset": _reset,
    **dict.fromkeys(_VANISHING, _vanish),
    **{fault.kind: _jump for fault in CLOCKS},
    FULL_DISK.kind: _fill_the_disk,
}
