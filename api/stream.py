"""The way into the alarm stream: tickets, and the WebSocket `/api/v1/stream`."""

import asyncio
import contextlib
import secrets
from http import HTTPStatus

import msgspec
from fastapi import APIRouter, Response, WebSocket
from pydantic import BaseModel
from starlette.websockets import WebSocketDisconnect

from anxin.db.alarms import Receipt
from anxin.db.pool import Database
from anxin.db.sessions import Authority, authorities, create_ticket, hash_token, take_ticket
from anxin.db.stations import Report, keep_report
from anxin.errors import DatabaseUnavailable
from anxin.logs import log
from api.answers import answer
from api.auth import Current
from api.live import Hub
from api.recording import NotRecorded, stream_entry
from api.services import Services, Shared, services
from api.viewer import (
    CloseCode,
    Displayed,
    Ended,
    Hello,
    Received,
    StationReport,
    Viewer,
    receive,
)
from api.wire import text_frame, wire_of

HELLO_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 10.0

router = APIRouter(tags=["stream"])
_log = log(__name__)
_hello = msgspec.json.Decoder(Hello)
_said = msgspec.json.Decoder(Received | Displayed | StationReport)


class Ticket(BaseModel):
    """Opens one stream, once, within 30 seconds."""

    ticket: str


@router.post("/stream/tickets", response_model=Ticket, status_code=HTTPStatus.CREATED)
async def new_ticket(user: Current, shared: Shared) -> Response:
    """Return a ticket for the WebSocket `/api/v1/stream`: browsers send no headers with one."""
    ticket = secrets.token_urlsafe(32)
    await create_ticket(shared.door, hash_token(ticket), user.token_hash)
    return answer({"ticket": ticket}, HTTPStatus.CREATED, {"cache-control": "no-store"})


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """Serve one viewer from its hello to its end; `docs/api.md` lists the frames."""
    shared = services(socket)
    await socket.accept()
    try:
        await _serve(socket, shared)
    except WebSocketDisconnect:
        return
    except Ended as ended:
        code = ended.code
    except DatabaseUnavailable:
        code = CloseCode.TRY_AGAIN
    shared.metrics.closed.labels(int(code)).inc()
    _log.info("stream_closed", code=int(code))
    # A client that takes nothing more does not take the close frame either: wait a while only.
    with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close(int(code), code.name.lower())


async def _serve(socket: WebSocket, shared: Services) -> None:
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            hello = _hello.decode(await receive(socket))
    except (TimeoutError, msgspec.MsgspecError):
        raise Ended(CloseCode.MALFORMED) from None
    user = await _user_of(hello.ticket, shared)
    hub = shared.hub
    try:
        await shared.recorder.record(stream_entry(user))
    except NotRecorded:
        raise Ended(CloseCode.TRY_AGAIN) from None
    viewer = Viewer(wire_of(socket), user, capacity=hub.capacity)
    with hub.watching(viewer):
        start, resync = await hub.begin(hello.cursor)
        viewer.position = start
        if resync:
            await viewer.send(text_frame(b'{"type":"resync"}'))
        await viewer.send(text_frame(b'{"type":"ready","cursor":%d}' % start))
        await _first_to_end(
            asyncio.create_task(viewer.ended(), name="stream-end"),
            asyncio.create_task(_listen(socket, viewer, shared), name="stream-read"),
            asyncio.create_task(_replay(viewer, hub), name="stream-replay"),
        )


async def _user_of(ticket: str, shared: Services) -> Authority:
    session = await take_ticket(shared.door, hash_token(ticket))
    users = await authorities(shared.door, [session]) if session else {}
    if not users:
        raise Ended(CloseCode.LOGGED_OUT)
    return next(iter(users.values()))


async def _replay(viewer: Viewer, hub: Hub) -> None:
    """Send what the viewer has missed and let the hub send the rest."""
    async with contextlib.aclosing(hub.replay(viewer)) as frames:
        async for frame in frames:
            await viewer.send(frame)
    hub.go_live(viewer)
    await viewer.ended()


async def _listen(socket: WebSocket, viewer: Viewer, shared: Services) -> None:
    """Take what the client says until it leaves: receipts, and how its screen is."""
    while True:
        try:
            said = _said.decode(await receive(socket))
        except msgspec.MsgspecError:
            raise Ended(CloseCode.MALFORMED) from None
        user = viewer.user
        if isinstance(said, StationReport):
            await _keep_report(said, user, shared.door)
        elif isinstance(said, Received):
            await shared.hub.confirm(
                Receipt("received", user.user_id, user.path, cursor=said.cursor)
            )
        else:
            await shared.hub.confirm(
                Receipt("displayed", user.user_id, user.path, alarm_id=int(said.alarm_id))
            )


async def _keep_report(said: StationReport, user: Authority, database: Database) -> None:
    """Store how a screen is; only staff keeps watch."""
    if user.path is None:
        return
    report = Report(
        user.user_id, said.screen, said.sound, said.visible, said.proved_at, said.on_duty
    )
    try:
        await keep_report(database, report)
    except DatabaseUnavailable:
        # It is said again within 15 s, and nobody can ask meanwhile.
        _log.warning("station_report_lost")


async def _first_to_end(*tasks: asyncio.Task[None]) -> None:
    """Wait for the first task to end, end the others, and raise what it raised."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
