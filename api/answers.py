"""Answers: JSON encoded once by msgspec, and lists that go on from an opaque cursor."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from fastapi import Query, Response
from pydantic import BaseModel, ConfigDict

from api.problems import Unusable

T = TypeVar("T")

Serial = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A place in a list that is ordered by a number of the database."""


class Page(BaseModel, Generic[T]):
    """One page of a list; `next` goes into `after` of the next request."""

    model_config = ConfigDict(title="Page")

    items: list[T]
    next: str | None


Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many items.")]
After = Annotated[
    str | None, Query(max_length=200, description="The `next` of the page before this one.")
]


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a value as JSON."""
    return Response(
        msgspec.json.encode(value),
        status_code=status,
        media_type="application/json",
        headers=headers,
    )


def page(items: Sequence[Any], places: Sequence[object], limit: int) -> Response:
    """Return one page of a list of which up to `limit` + 1 items were read.

    `places` says of each item where it stands, as `place_after` gives it back.
    """
    more = len(items) > limit
    cursor = _written(places[limit - 1]) if more else None
    return answer({"items": items[:limit], "next": cursor})


def serial_after(after: str | None) -> int | None:
    """Return the number that an `after` stands for; raise Unusable when it is not one of ours."""
    return None if after is None else place_after(after, Serial)


def place_after(after: str, kind: Any) -> Any:  # noqa: ANN401  # a type expression and its value
    """Return the place that an `after` stands for; raise Unusable when it is not one of ours."""
    try:
        raw = base64.urlsafe_b64decode(after + "=" * (-len(after) % 4))
        return msgspec.json.decode(raw, type=kind)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise Unusable("`after` must be the `next` of an earlier page.") from error


def _written(place: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")
