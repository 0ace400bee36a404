"""`make chaos`: publish, kill what runs, and compare every acknowledgement with the database."""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from anxin.errors import AnxinError
from bench.population import Enrolled, enrol
from bench.stack import Stack
from chaos.crowd import TICK_SECONDS, Crowd
from chaos.ledger import Ledger, read
from chaos.report import TARGETS, Kill, Run, report
from chaos.stored import stored_rows
from chaos.verdict import judge

PAGE: Final = Path(__file__).parent.parent / "docs" / "reliability.md"
_RECOVERY_SECONDS = 60.0
_DRAIN_SECONDS = 60.0
_PRESSES_AT_A_KILL = 4


class NotRecovered(AnxinError):
    """The platform did not take readings again in time."""


def main() -> int:
    """Run, print and write the page; 0 when the promise was kept."""
    arguments = _parser().parse_args()
    runs: list[Run] = []
    try:
        runs.append(asyncio.run(chaos(arguments)))
    except* AnxinError as errors:
        for error in _leaves(errors):
            sys.stderr.write(f"chaos: {error}\n")
    if not runs:
        return 1
    page = report(runs[0], datetime.now(UTC))
    print(page)
    if not arguments.quick:
        PAGE.write_text(page, encoding="utf-8")
    return 0 if runs[0].kept else 1


async def chaos(arguments: argparse.Namespace) -> Run:
    """Carry out one run on a platform of its own."""
    run = Run(arguments.devices, arguments.rate, arguments.seed)
    dice = random.Random(arguments.seed)  # noqa: S311 - repeatable, not secret
    each = arguments.kills or (1 if arguments.quick else 10)
    kills = [target for target in TARGETS for _ in range(each)]
    dice.shuffle(kills)
    stack = Stack(arguments.http, arguments.mqtt)
    with stack:
        steady = await enrol(stack.dsn, "chaos", arguments.devices)
        buttons = await enrol(stack.dsn, "chaosbutton", 60 + 40 * len(kills), kind="call_button")
        book_path = arguments.ledger or stack.directory / "ledger.txt"
        began = time.monotonic()
        with Ledger(book_path) as ledger:
            async with _publishing(stack, steady, buttons, ledger, arguments, dice) as crowd:
                await _steady_again(stack, crowd, arguments.rate)
                for number, target in enumerate(kills, 1):
                    kill = await _kill(stack, crowd, target, arguments.rate, dice)
                    run.kills.append(kill)
                    print(
                        f"{number:3}/{len(kills)} kill -9 {target:8} "
                        f"pid {', '.join(map(str, kill.pids))}: "
                        f"acknowledging again after {kill.silence_seconds:.2f} s",
                        flush=True,
                    )
                run.seconds = time.monotonic() - began
                run.messages = ledger.messages_acknowledged
            run.sent_again = crowd.sent_again
        with book_path.open(encoding="ascii") as lines:
            book = read(lines)
        stored = await stored_rows(stack.dsn, "chaos")
        run.verdict = judge(book, stored)
        run.exit_code = stack.end()
    return run


@asynccontextmanager
async def _publishing(
    stack: Stack,
    steady: Sequence[Enrolled],
    buttons: Sequence[Enrolled],
    ledger: Ledger,
    arguments: argparse.Namespace,
    dice: random.Random,
) -> AsyncIterator[Crowd]:
    """Publish during the block; afterwards wait until everything is acknowledged."""
    address = (stack.mqtt.host, stack.mqtt.port)
    async with asyncio.TaskGroup() as tasks:
        crowd = Crowd(steady, buttons, address, ledger, tasks, dice)
        sources = (
            tasks.create_task(crowd.publish(arguments.rate), name="readings"),
            tasks.create_task(crowd.press_now_and_then(0.5), name="presses"),
        )
        yield crowd
        for source in sources:
            source.cancel()
        crowd.close()
        await _drained(stack, crowd)


async def _drained(stack: Stack, crowd: Crowd) -> None:
    """Wait until every message that was ever offered is acknowledged."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    while pending := crowd.pending:
        stack.check()
        if time.monotonic() > deadline:
            raise NotRecovered(
                f"{pending} messages were not acknowledged within {_DRAIN_SECONDS:.0f} s after "
                f"the last kill.\n{stack.last_words()}"
            )
        await asyncio.sleep(TICK_SECONDS)


async def _kill(stack: Stack, crowd: Crowd, target: str, rate: float, dice: random.Random) -> Kill:
    """Kill, wait until the platform takes readings again, and measure how long that took."""
    crowd.ledger.watch_silence()
    for _ in range(_PRESSES_AT_A_KILL):
        crowd.press()
    # Anywhere in the life of these presses: on the wire, in the transaction, acknowledged.
    await asyncio.sleep(dice.uniform(0, 0.03))
    if target == "tree":
        pids = await asyncio.to_thread(stack.kill_tree)
        await asyncio.to_thread(stack.start)
    else:
        pids = [process.pid for process in stack.processes(target)]
        if not pids:
            raise NotRecovered(f"There is no {target} process to kill.\n{stack.last_words()}")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await _replaced(stack, target, pids)
    await _steady_again(stack, crowd, rate)
    silence_seconds = crowd.ledger.longest_silence_seconds
    await asyncio.sleep(dice.uniform(0, 1))
    return Kill(target, tuple(pids), silence_seconds)


async def _replaced(stack: Stack, role: str, old: Sequence[int]) -> None:
    """Wait until new processes stand in the place of the killed ones."""
    deadline = time.monotonic() + _RECOVERY_SECONDS
    while not (now := [process.pid for process in stack.processes(role)]) or set(now) & set(old):
        stack.check()
        if time.monotonic() > deadline:
            raise NotRecovered(f"No new {role} process came.\n{stack.last_words()}")
        await asyncio.sleep(TICK_SECONDS)


async def _steady_again(stack: Stack, crowd: Crowd, rate: float) -> None:
    """Wait until a second passes with most of its messages acknowledged and no backlog."""
    deadline = time.monotonic() + _RECOVERY_SECONDS
    while True:
        before = crowd.ledger.messages_acknowledged
        await asyncio.sleep(1)
        stack.check()
        taken = crowd.ledger.messages_acknowledged - before
        if taken >= 0.8 * rate and crowd.pending < rate / 2:
            return
        if time.monotonic() > deadline:
            raise NotRecovered(
                f"After {_RECOVERY_SECONDS:.0f} s {taken} of {rate:.0f} messages/s are "
                f"acknowledged and {crowd.pending} wait.\n{stack.last_words()}"
            )


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--kills", type=int, help="of each kind (10; with --quick 1)")
    parser.add_argument("--rate", type=float, default=1200, help="messages a second (1200)")
    parser.add_argument("--devices", type=int, default=40, help="steady devices (40)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the kills (1)")
    parser.add_argument("--http", default="127.0.0.1:18080", help="refused when in use")
    parser.add_argument("--mqtt", default="127.0.0.1:11883", help="refused when in use")
    parser.add_argument("--ledger", type=Path, help="keep the publishers' book here")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one kill of each kind, and no file is written",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
