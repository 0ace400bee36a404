"""Who was shown what goes into the audit before it goes out.

One place for every route: a layer around the application looks at the answer of a request, knows
from the table below what kind of thing its route serves, and holds the answer until its entry is
committed. What cannot be recorded is not shown. The same thing of the same people, asked again by
the same user in the same minute, is not written again. Changes are recorded by triggers of the
database, in the transaction that makes them; here only that somebody was refused.

The alarm stream does not wait: an alarm comes first. Whom it showed is recorded within a second.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from time import time
from types import TracebackType
from typing import Final, Generic, Literal, Self, TypeVar

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anxin.db.audit import Noted, Scribe
from anxin.db.pool import Database
from anxin.db.sessions import Authority
from anxin.errors import AnxinError, DatabaseUnavailable
from anxin.logs import log
from api.live import SHOWN_S
from api.problems import problem

BASE: Final = "/api/v1"
REPEAT_S: Final = 60
"""What somebody is shown again within the same minute is one entry."""
FLUSH_S: Final = 1.0
MOST: Final = 500
"""So many entries, or residents in one, are written at once."""

_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_LONGEST_ID: Final = 64
_READING: Final = frozenset({"GET", "HEAD"})
_REFUSED: Final = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
# Somebody else was quicker: the answer says how the alarm stands.
_SHOWING: Final = frozenset({HTTPStatus.CONFLICT})
_LOGIN_FAILED: Final = {
    "/auth/login": HTTPStatus.UNAUTHORIZED,
    "/auth/providers/{provider}/callback": HTTPStatus.FORBIDDEN,
}
_log = log(__name__)
T = TypeVar("T")


class NotRecorded(AnxinError):
    """This could not be recorded, so it is not shown. Try again in a moment."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a route serves.

    `whom`: where the answer names the residents it shows, if the path does not. `unread`: why
    nobody needs to know who read it. `said`: no table tells that it was done, so it is recorded.
    `does`: the word for a GET that does something.
    """

    object: str
    whom: Literal["", "id", "resident_id"] = ""
    unread: str = ""
    said: bool = False
    does: str = ""


_SETTING_UP: Final = "how a house is set up; nobody's health"
_OWN: Final = "one's own"
KINDS: Final[dict[str, Kind]] = {
    "/residents": Kind("resident", "id"),
    "/residents/{resident_id}": Kind("resident"),
    "/residents/{resident_id}/status": Kind("status"),
    "/residents/{resident_id}/vitals": Kind("vitals"),
    "/residents/{resident_id}/events": Kind("events"),
    "/residents/{resident_id}/usual": Kind("vitals"),
    "/residents/{resident_id}/station": Kind("place", unread=_SETTING_UP),
    "/residents/{resident_id}/visits": Kind("visit"),
    "/residents/{resident_id}/visits/{visit_id}": Kind("visit"),
    "/residents/{resident_id}/risk": Kind("risk"),
    "/residents/{resident_id}/risk/history": Kind("risk"),
    "/residents/{resident_id}/observations": Kind("observation"),
    "/residents/{resident_id}/family": Kind("family"),
    "/residents/{resident_id}/family/{user_id}": Kind("family"),
    "/residents/{resident_id}/access": Kind("access"),
    "/residents/{resident_id}/export": Kind("export"),
    "/residents/{resident_id}/identity": Kind("identity"),
    "/residents/{resident_id}/identity/reveal": Kind("identity", said=True),
    "/residents/{resident_id}/relatives": Kind("relative"),
    "/residents/{resident_id}/relatives/{relative_id}": Kind("relative"),
    "/residents/{resident_id}/consents": Kind("consent"),
    "/residents/{resident_id}/consents/{consent_id}": Kind("consent"),
    "/residents/{resident_id}/erase": Kind("erasure"),
    "/erasures": Kind("erasure", "resident_id"),
    "/erasures/{erasure_id}/approve": Kind("erasure", "resident_id"),
    "/erasures/{erasure_id}/refuse": Kind("erasure", "resident_id"),
    "/people/search": Kind("identity", "id", said=True),
    "/alarms": Kind("alarm", "resident_id"),
    "/alarms/{alarm_id}": Kind("alarm", "resident_id"),
    "/alarms/{alarm_id}/acknowledge": Kind("alarm", "resident_id"),
    "/alarms/{alarm_id}/arrive": Kind("alarm", "resident_id"),
    "/alarms/{alarm_id}/close": Kind("alarm", "resident_id"),
    "/alarms/{alarm_id}/snooze": Kind("alarm", "resident_id"),
    "/alarms/{alarm_id}/note": Kind("alarm", "resident_id"),
    "/alarms/{alarm_id}/timeline": Kind("timeline"),
    "/alarms/{alarm_id}/answers": Kind("timeline"),
    "/alarms/{alarm_id}/deliveries": Kind("deliveries"),
    "/devices": Kind("device", "resident_id"),
    "/devices/{device_id}": Kind("device", "resident_id"),
    "/devices/{device_id}/secret": Kind("device"),
    "/devices/{device_id}/assignment": Kind("assignment", "resident_id"),
    "/devices/{device_id}/commands": Kind("command"),
    "/enrolments": Kind("enrolment", "resident_id"),
    "/enrolments/{enrolment_id}": Kind("enrolment"),
    "/enrol": Kind("enrolment", said=True),
    "/quarantine": Kind("quarantine"),
    "/quarantine/{rejected_id}": Kind("quarantine"),
    "/users": Kind("user"),
    "/users/{user_id}": Kind("user"),
    "/users/{user_id}/password": Kind("password", said=True),
    "/users/{user_id}/sessions": Kind("session", said=True),
    "/users/{user_id}/totp": Kind("second_factor", said=True),
    "/users/{user_id}/identities": Kind("outside_identity"),
    "/users/{user_id}/identities/{identity_id}": Kind("outside_identity"),
    "/contacts": Kind("contact"),
    "/contacts/{contact_id}": Kind("contact"),
    "/contacts/{contact_id}/test": Kind("contact", said=True),
    "/reports/answering": Kind("report"),
    "/reports/devices": Kind("report"),
    "/imports": Kind("import", said=True),
    "/imports/{import_id}": Kind("import", said=True),
    "/imports/{import_id}/rows": Kind("import", "resident_id"),
    "/imports/{import_id}/mend": Kind("import", said=True),
    "/imports/{import_id}/apply": Kind("import", said=True),
    "/exports/{kind}": Kind("export"),
    "/exports/{kind}/template": Kind("export", unread="an empty list"),
    "/limits": Kind("limit", unread=_SETTING_UP),
    "/limit-templates": Kind("limit_template", unread=_SETTING_UP),
    "/limit-templates/{template_id}": Kind("limit_template"),
    "/limit-templates/{template_id}/apply": Kind("limit_template", said=True),
    "/backups": Kind("backup"),
    "/audit": Kind("audit"),
    "/models": Kind("model", unread="how the models do; nobody's health"),
    "/models/{model_id}/mode": Kind("model"),
    "/auth/login": Kind("session", said=True),
    "/auth/logout": Kind("session", said=True),
    "/auth/providers": Kind("provider", unread="which buttons the login page shows"),
    "/auth/providers/{provider}/callback": Kind("session", said=True, does="login"),
    "/auth/step-up": Kind("session", said=True),
    "/me": Kind("session", unread=_OWN),
    "/me/consents": Kind("consent", unread=_OWN),
    "/me/quiet-hours": Kind("quiet_hours", unread=_OWN),
    "/me/sessions": Kind("session", unread=_OWN, said=True),
    "/me/sessions/{session_id}": Kind("session", said=True),
    "/me/password": Kind("password", said=True),
    "/me/totp": Kind("second_factor", said=True),
    "/me/totp/confirm": Kind("second_factor", said=True),
    "/places": Kind("place", unread=_SETTING_UP),
    "/places/{place_id}": Kind("place", unread=_SETTING_UP),
    "/shifts": Kind("shift", unread=_SETTING_UP),
    "/shifts/{shift_id}": Kind("shift"),
    "/ladders": Kind("ladder", unread=_SETTING_UP),
    "/ladders/verdict": Kind("ladder", unread=_SETTING_UP),
    "/ladders/{ladder_id}": Kind("ladder"),
    "/stations": Kind("station", unread="which screens keep watch; nobody's health"),
    "/self-tests": Kind("self_test", unread="tests of the platform itself"),
    "/channels": Kind("channel", unread=_SETTING_UP),
    "/channels/web_push/key": Kind("channel", unread="a public key"),
}
"""Every route by its path below /api/v1; a test fails on one that is not here."""

UNRECORDED: Final = {
    "/stream/tickets": "a ticket shows nothing; the stream that it opens is recorded",
    "/channels/{channel}/reports/{token}": "a provider's program tells of its own deliveries",
    "/openapi.json": "the description of the API",
    "/auth/providers/{provider}/login": "who goes to a provider is nobody until it comes back",
}
"""Routes that no entry is written of, and why."""


class Recorder:
    """Writes entries for one process: those that came while others were written go together."""

    def __init__(self, database: Database) -> None:
        """Prepare; the database handle is that of nobody in particular."""
        self._scribe = Scribe(database)
        self._told: _Window[dict[int, asyncio.Future[bool]]] = _Window(REPEAT_S, dict)
        self._shown: _Window[set[int]] = _Window(SHOWN_S, set)
        self._waiting: list[_Waiting] = []
        self._streamed: dict[int, tuple[Authority, list[int]]] = {}
        self._ring = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether entries are still written; a process that writes none must be replaced."""
        return self._task is not None and not self._task.done()

    async def __aenter__(self) -> Self:
        """Start to write."""
        self._task = asyncio.create_task(self._run(), name="audit")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; what streams have shown is written first if the database is there."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(DatabaseUnavailable):
            await self._write_streamed()
        await self._scribe.close()

    async def record(self, noted: Noted) -> None:
        """Return once this is committed, now or within the same minute; raise NotRecorded."""
        if not self.alive:
            raise NotRecorded
        known = self._told.of(msgspec.structs.replace(noted, residents=()))
        whom = noted.residents or (0,)
        new = [one for one in whom if one not in known]
        waits = {known[one] for one in whom if one in known}
        if new:
            one = _Waiting(
                msgspec.structs.replace(noted, residents=tuple(filter(None, new))), known, new
            )
            known.update(dict.fromkeys(new, one.written))
            waits.add(one.written)
            self._waiting.append(one)
            self._ring.set()
        for written in waits:
            # Several requests may wait for one: a client that leaves must not take it with it.
            if not (written.done() and written.result()) and not await asyncio.shield(written):
                raise NotRecorded

    def showed(self, user: Authority, resident_id: int) -> None:
        """Take note that a stream showed somebody to a user; never waits."""
        shown = self._shown.of(user.user_id)
        if resident_id not in shown:
            shown.add(resident_id)
            self._streamed.setdefault(user.user_id, (user, []))[1].append(resident_id)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._ring.wait()
            self._ring.clear()
            try:
                await self._write_waiting()
                await self._write_streamed()
            except DatabaseUnavailable:
                _log.warning("audit_waits_for_database")
            except Exception:  # noqa: BLE001  one entry's defect must not blind a whole house
                _log.exception("audit_defect")

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            written = False
            try:
                await self._scribe.write([one.noted for one in batch])
                written = True
            finally:
                for one in batch:
                    one.end(written=written)

    async def _write_streamed(self) -> None:
        streamed, self._streamed = self._streamed, {}
        entries = [
            stream_entry(user, residents[start : start + MOST])
            for user, residents in streamed.values()
            for start in range(0, len(residents), MOST)
        ]
        try:
            if entries:
                await self._scribe.write(entries)
        except BaseException:
            for user_id, (user, residents) in streamed.items():
                self._streamed.setdefault(user_id, (user, []))[1].extend(residents)
            raise


def stream_entry(user: Authority, residents: Sequence[int] = ()) -> Noted:
    """Return the entry that a user's stream was opened, or showed these residents."""
    return Noted(
        user_id=user.user_id,
        role=user.role,
        path=user.path,
        action="show" if residents else "open",
        object="stream",
        residents=tuple(residents),
        channel="stream",
    )


class Recorded:
    """The layer around the application that holds an answer until its entry is written."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(BASE):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        refused = False

        async def held(message: Message) -> None:
            nonlocal start, refused
            if refused:
                return
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                begun, start = start, None
                noted = entry_of(scope, begun["status"], message.get("body", b""))
                try:
                    if noted is not None:
                        await scope["app"].state.services.recorder.record(noted)
                except NotRecorded as error:
                    refused = True
                    answer = problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
                    await answer(scope, receive, send)
                    return
                await send(begun)
            await send(message)

        await self._app(scope, receive, held)


def entry_of(scope: Scope, status: int, body: bytes) -> Noted | None:
    """Return the entry of a request and its answer, or None when there is nothing to tell."""
    route = getattr(scope.get("route"), "path", None)
    if route is None:
        return None
    state = scope.get("state", {})
    user: Authority | None = state.get("user")
    path = route.removeprefix(BASE)
    kind = KINDS.get(path) or Kind(_last_word(path), "resident_id", said=True)
    reading = scope["method"] in _READING and not kind.does
    done = status < HTTPStatus.BAD_REQUEST
    at_login = status == _LOGIN_FAILED.get(path)
    told = (
        at_login
        or (user is not None and (status in _REFUSED or (status in _SHOWING and kind.whom)))
        or (done and (not kind.unread if reading else kind.said))
    )
    if not told or path in UNRECORDED:
        return None
    parameters = dict(scope.get("path_params", {}))
    resident_id = parameters.pop("resident_id", None)
    residents: tuple[int, ...] = ()
    if resident_id is not None:
        # Who is refused is told so before the path is judged: what is no number names nobody.
        residents = (int(resident_id),) if _NUMBER.fullmatch(resident_id) else ()
    elif done and kind.whom:
        residents = _shown(kind, body)
    object_id = state.get("object_id") or next(reversed(parameters.values()), None)
    if object_id is None and done and kind.said and body.startswith(b"{"):
        object_id = _answer.decode(body).id
    client = scope.get("client")
    return Noted(
        user_id=user.user_id if user else state.get("user_id"),
        role=user.role if user else None,
        path=user.path if user else None,
        action=kind.does or ("read" if reading else _action(path, scope["method"])),
        object=kind.object,
        # For the same reason it may hold what Postgres cannot.
        object_id=None if object_id is None else str(object_id).replace("\0", "")[:_LONGEST_ID],
        residents=residents,
        status=status,
        channel=state.get("channel"),
        address=client[0] if client and (user is None or kind.object == "session") else None,
    )


class _Item(msgspec.Struct):
    id: str | int | None = None
    resident_id: str | None = None


class _Answer(msgspec.Struct):
    id: str | int | None = None
    resident_id: str | None = None
    items: list[_Item] = msgspec.field(default_factory=list)


_answer = msgspec.json.Decoder(_Answer)


def _shown(kind: Kind, body: bytes) -> tuple[int, ...]:
    """Return the residents whom an answer names."""
    if not body.startswith(b"{"):
        return ()
    answer = _answer.decode(body)
    named = [getattr(one, kind.whom) for one in (answer, *answer.items)]
    return tuple(sorted({int(one) for one in named if one is not None}))


def _action(path: str, method: str) -> str:
    """Return the word for a request that changes something, its own where its path ends in one."""
    names = {"POST": "create", "PUT": "change", "PATCH": "change", "DELETE": "delete"}
    if path.endswith("}") or path.count("/") == 1:
        return names.get(method, method.lower())
    return _last_word(path)


def _last_word(path: str) -> str:
    return next(word for word in reversed(path.split("/")) if not word.startswith("{"))


class _Window(Generic[T]):
    """What was told since the clock last passed a multiple of so many seconds."""

    def __init__(self, seconds: int, empty: Callable[[], T]) -> None:
        self._seconds = seconds
        self._empty = empty
        self._number = 0
        self._told: dict[object, T] = {}

    def of(self, key: object) -> T:
        """Return what was told of this in the present window."""
        number = int(time() // self._seconds)
        if number != self._number:
            self._number, self._told = number, {}
        if key not in self._told:
            self._told[key] = self._empty()
        return self._told[key]


@dataclass(slots=True)
class _Waiting:
    """An entry that is about to be written, and who waits for it."""

    noted: Noted
    known: dict[int, asyncio.Future[bool]]
    whom: Sequence[int]
    written: asyncio.Future[bool] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def end(self, *, written: bool) -> None:
        """Tell everybody; what was not written is not known."""
        if not written:
            for one in self.whom:
                del self.known[one]
        self.written.set_result(written)
