"""Every error of the API as RFC 9457 `application/problem+json`; never with what was sent in it."""

from http import HTTPStatus
from math import ceil

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from anxin.db.accounts import TooManyGuesses
from anxin.db.alarms import WrongState
from anxin.db.roster import Unreliable
from anxin.errors import AnxinError, Conflict, DatabaseUnavailable, NotFound, Refused
from anxin.logs import log
from anxin.passwords import WORDS, Weakness
from anxin.seal import KeysMissing, KeyUnknown
from api.permissions import Forbidden

_log = log(__name__)


class Unauthenticated(AnxinError):
    """Log in first: this needs a session."""


class CodeMissing(Unauthenticated):
    """Send `totp` as well: the number that your authenticator shows now, or a recovery code."""


class CodeMissingHere(Forbidden):
    """The same in a session, which goes on."""


class PasswordChangeNeeded(Forbidden):
    """Choose a password of your own first (POST /api/v1/me/password); nothing else goes before."""


class SecondFactorNeeded(Forbidden):
    """Your role needs a second factor. Set one up first: POST /api/v1/me/totp, then /confirm."""


class NotConfirmed(Forbidden):
    """Confirm your password first (POST /api/v1/auth/step-up), then try again within 10 minutes."""


class Unusable(AnxinError):
    """The request cannot be used as it is."""


class WeakPassword(Unusable):
    """This password may not be chosen."""

    def __init__(self, reason: Weakness) -> None:
        """Say why, in a sentence and in a word for programs."""
        super().__init__(WORDS[reason])
        self.reason = reason


class TooMany(AnxinError):
    """Too many requests of this kind at once. Try again in a few seconds."""


class FieldError(BaseModel):
    """One field at fault, and why."""

    field: str
    detail: str


class Problem(BaseModel):
    """An error as RFC 9457 describes it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


STATUS: dict[type[AnxinError], HTTPStatus] = {
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    Refused: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Unusable: HTTPStatus.UNPROCESSABLE_ENTITY,
    TooMany: HTTPStatus.TOO_MANY_REQUESTS,
    TooManyGuesses: HTTPStatus.TOO_MANY_REQUESTS,
    DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    KeysMissing: HTTPStatus.SERVICE_UNAVAILABLE,
    KeyUnknown: HTTPStatus.SERVICE_UNAVAILABLE,
}
TYPES: dict[type[Exception], str] = {
    CodeMissing: "second-factor",
    CodeMissingHere: "second-factor",
    PasswordChangeNeeded: "password-change-needed",
    SecondFactorNeeded: "second-factor-needed",
    NotConfirmed: "step-up",
}
"""Problems that a program can do something about, by the `type` that it knows them by."""
_EXTRA_HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"www-authenticate": "Bearer"},
    HTTPStatus.TOO_MANY_REQUESTS: {"retry-after": "10"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"retry-after": "1"},
}


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of this application with a problem document."""
    app.add_exception_handler(AnxinError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_bad_fields)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_defect)


def problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, **extra: object
) -> Response:
    """Return a problem document; `extra` members are added to it."""
    known = HTTPStatus(status)
    body = {
        "type": "about:blank",
        "title": known.phrase,
        "status": status,
        "detail": detail,
        **extra,
    }
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/problem+json",
        headers={**_EXTRA_HEADERS.get(known, {}), **(headers or {})},
    )


async def _on_our_error(_: Request, error: Exception) -> Response:
    if isinstance(error, WrongState):
        return problem(HTTPStatus.CONFLICT, str(error), alarm=error.alarm)
    if isinstance(error, TooManyGuesses):
        wait = {"retry-after": str(max(1, ceil(error.retry_after.total_seconds())))}
        return problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), headers=wait)
    if isinstance(error, WeakPassword):
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), reason=error.reason)
    if isinstance(error, Unreliable):
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), faults=error.faults)
    for kind in type(error).__mro__:
        if kind in STATUS:
            return problem(STATUS[kind], str(error), type=TYPES.get(type(error), "about:blank"))
    _log.error("request_failed", error=type(error).__name__)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "This did not work. It was noted in the log.")


async def _on_bad_fields(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for this type only
    # Only where and why: what was sent may be a password or a person's data.
    errors = [
        {
            "field": ".".join(str(part) for part in one["loc"]),
            "detail": one["msg"].removeprefix("Value error, "),
        }
        for one in error.errors()
    ]
    detail = f"{len(errors)} field(s) cannot be used; see errors."
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this type only
    return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))


async def _on_defect(_: Request, error: Exception) -> Response:  # noqa: ARG001  # the server logs it
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "This did not work. It was noted in the log.")
