"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")

_POLL_SECONDS = 0.02


def wait_until(
    condition: Callable[[], Found | None], timeout_seconds: float = 10.0, what: str = ""
) -> Found:
    """Return the first true value of `condition`; fail after `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(_message(condition, timeout_seconds, what))
        time.sleep(_POLL_SECONDS)
    return found


async def eventually(
    condition: Callable[[], Found | Awaitable[Found | None] | None],
    timeout_seconds: float = 10.0,
    what: str = "",
) -> Found:
    """Return the first true value of `condition`, plain or async, and let the loop run between."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = condition()
        found: Found | None = await answer if inspect.isawaitable(answer) else answer
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(_message(condition, timeout_seconds, what))
        await asyncio.sleep(_POLL_SECONDS)


def _message(condition: object, timeout: float, what: str) -> str:
    name = what or getattr(condition, "__qualname__", repr(condition))
    return f"not true after {timeout:g} s: {name}"
