"""What the group robots of WeCom, DingTalk and Feishu share: a secret URL, JSON, a code inside."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from anxin.notify.channel import DeliveryError
from anxin.notify.web import Web

MOST_PER_MINUTE: Final = 20
"""What WeCom and DingTalk allow one robot; Feishu allows 100, and 20 are enough to read."""


async def ask_robot(
    web: Web, url: str, body: Mapping[str, Any], *, code: str, rest_seconds: Mapping[int, float]
) -> None:
    """Post to a robot; raise DeliveryError unless the answer's `code` is 0.

    `rest_seconds` says for each code that passes by itself how long that takes; -1 is every
    provider's "busy". Any other code is a refusal.
    """
    answer = await web.post(url, msgspec.json.encode(body), coded=True)
    number = answer.get(code) if isinstance(answer, dict) else None
    if number == 0:
        return
    if not isinstance(number, int):
        raise DeliveryError("The robot's answer cannot be read.", permanent=False)
    rest = {-1: 1.0, **rest_seconds}.get(number)
    raise DeliveryError(
        f"The robot refused it ({code} {number}).",
        permanent=rest is None,
        retry_after_seconds=rest,
    )


def cut(text: str, most_bytes: int) -> str:
    """Return as much of a text as fits into so many bytes of UTF-8."""
    return text.encode()[:most_bytes].decode(errors="ignore")
