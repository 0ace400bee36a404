"""What `anxin simulate` and `anxin replay` share towards the person who runs them.

Options about the connection, Ctrl-C, progress, the closing line and the exit code.
"""

import argparse
import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from anxin.config import Address, Settings
from anxin.errors import AnxinError
from anxin.logs import log
from device_sim.fleet import Fleet, Tally
from device_sim.provision import Api

_log = log(__name__)

CONNECT_S: Final = 30.0
REFUSED_S: Final = 6.0
FINISH_S: Final = 30.0
"""How long the last acknowledgements are waited for; a third of it after Ctrl-C."""
UNIT_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
SHOW_S: Final = 0.5
REPORT_S: Final = 60.0
"""Between lines of the log when no person is watching."""
_ANY: Final = ("0.0.0.0", "::", "")


class DevicesRefused(AnxinError):
    """The platform refused every device."""


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how to reach the platform."""
    parser.add_argument("--mqtt", metavar="H:P", help="where devices connect")
    parser.add_argument(
        "--protocol", choices=("3.1.1", "5"), default="3.1.1", help="MQTT version (default 3.1.1)"
    )
    parser.add_argument("--api", metavar="URL", help="the HTTP API, for example http://[::1]:8080")
    parser.add_argument("--user", default="admin", help="who creates what is missing (admin)")


def can_log_in(settings: Settings) -> bool:
    """Return whether there is a login to create things with."""
    return bool(settings.admin_password or os.environ.get("ANXIN_API_TOKEN"))


def administrator(args: argparse.Namespace, settings: Settings) -> Api:
    """Return the API that the options and the environment name."""
    address = Address.parse(settings.http)
    local = Address("127.0.0.1", address.port) if address.host in _ANY else address
    return Api(
        args.api or f"http://{local}",
        user=args.user,
        password=settings.admin_password,
        token=os.environ.get("ANXIN_API_TOKEN", ""),
    )


def mqtt_address(text: str, settings: Settings) -> Address:
    """Return where devices connect; a listener on every address is reached on loopback."""
    address = Address.parse(text or settings.mqtt)
    return Address("127.0.0.1", address.port) if address.host in _ANY else address


def mqtt_level(version: str) -> int:
    """Return the protocol level of an MQTT version."""
    return 5 if version == "5" else 4


def span_s(text: str) -> float:
    """Read `90`, `90s`, `10m`, `2h` or `7d` as seconds, for argparse."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time span such as 90s, 10m, 2h or 7d")
    return float(found[1]) * UNIT_S[found[2]]


async def all_connected(fleet: Fleet, count: int, stop: asyncio.Event) -> None:
    """Wait until each device is connected, for a while; go on with those that are.

    A device whose secret is seconds old may be refused at first, so a refusal is not yet an end.
    Raise DevicesRefused when it stays at that for every device.
    """
    begin_s = time.monotonic()
    while not stop.is_set() and fleet.connected < count:
        waited_s = time.monotonic() - begin_s
        answered = fleet.connected + len(fleet.refused) >= count
        if waited_s > (REFUSED_S if answered else CONNECT_S):
            break
        await pause(stop, 0.05)
    if len(fleet.refused) == count:
        raise DevicesRefused(_refusal(fleet))


def _refusal(fleet: Fleet) -> str:
    device, reason = next(iter(fleet.refused.items()))
    return (
        f"The platform refused {len(fleet.refused)} devices, for example {device}: {reason}. "
        "If its database is new, run again with --provision; if secrets were renewed elsewhere, "
        "delete the devices file first."
    )


def summary(tally: Tally) -> str:
    """Return the counts as one line."""
    return (
        f"sent={tally.sent} acknowledged={tally.acked} unacknowledged={tally.unacknowledged} "
        f"rejected={tally.rejected} forgotten={tally.forgotten} receipts={tally.receipts} "
        f"reconnects={tally.reconnects} refused={tally.refused}"
    )


def verdict(fleet: Fleet) -> int:
    """Return the exit code, with a word on standard error when it is not 0."""
    if fleet.refused:
        print(_refusal(fleet), file=sys.stderr)
        return 1
    if not fleet.tally.complete:
        missing = fleet.tally.sent - fleet.tally.acked
        print(
            f"{missing} messages were never acknowledged. See whether the platform is running.",
            file=sys.stderr,
        )
        return 1
    return 0


@contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """Give an event that Ctrl-C and SIGTERM set; a second Ctrl-C ends at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, ask)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)


async def pause(stop: asyncio.Event, for_s: float) -> None:
    """Wait so long, or until told to stop."""
    if for_s <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(for_s):
            await stop.wait()
    except TimeoutError:
        return


@contextmanager
def progress(tally: Tally, connected: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Give a function that shows the counts: one rewritten line, or a line of the log a minute."""
    watched = sys.stderr.isatty()
    every_s = SHOW_S if watched else REPORT_S
    shown_s, sent = time.monotonic(), 0

    def show() -> None:
        nonlocal shown_s, sent
        now_s = time.monotonic()
        if now_s - shown_s < every_s:
            return
        rate = (tally.sent - sent) / (now_s - shown_s)
        shown_s, sent = now_s, tally.sent
        if watched:
            line = f"{connected():,} connected · {rate:,.0f}/s · {summary(tally)}"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            _log.info(
                "progress",
                connected=connected(),
                sent=tally.sent,
                acknowledged=tally.acked,
                unacknowledged=tally.unacknowledged,
                reconnects=tally.reconnects,
            )

    try:
        yield show
    finally:
        if watched:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
