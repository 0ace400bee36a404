"""The fields that requests are made of: bounded, and always something Postgres can store."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints

FIRST_YEAR, LAST_YEAR = 1970, 2199
MOST_JSON = 16 * 1024


class Body(BaseModel):
    """A request body: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("A text may not contain the character U+0000.")
    return text


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what JSON in Postgres cannot hold: U+0000, lone surrogates, NaN; and what is long."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (ValueError, RecursionError) as error:
        raise ValueError("This is not JSON that can be stored.") from error
    if size > MOST_JSON:
        raise ValueError(f"At most {MOST_JSON} bytes of JSON.")
    if "\\u0000" in text and _holds_nul(value):
        raise ValueError("A text may not contain the character U+0000.")
    return value


def _holds_nul(value: Any) -> bool:  # noqa: ANN401  # any JSON value
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(inner) for key, inner in value.items())
    return isinstance(value, list) and any(_holds_nul(inner) for inner in value)


def _sensible(moment: datetime) -> datetime:
    try:
        moment = moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("This time is out of range.") from error
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"Times lie between the years {FIRST_YEAR} and {LAST_YEAR}.")
    return moment


Id = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,17}$")]
"""A number given out by the platform, as text."""

DeviceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    AfterValidator(_no_nul),
]
Text = Annotated[str, StringConstraints(max_length=4000), AfterValidator(_no_nul)]
Username = Annotated[str, StringConstraints(pattern=r"^[\w.@+-]+$", min_length=1, max_length=64)]
Moment = Annotated[AwareDatetime, AfterValidator(_sensible)]
"""A time with an offset, as UTC."""

JsonObject = Annotated[dict[str, Any], AfterValidator(_storable)]


def number(text: str | None) -> int | None:
    """Return an Id as the database counts it."""
    return None if text is None else int(text)
