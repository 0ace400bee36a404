"""The alarm stream: one reader of the timeline per process, any number of viewers.

Truth lies in the timeline, in the order of its cursor. A ring of the doorbell, or the clock at the
latest, makes the hub read what is new; it keeps a tail in memory and hands every change to those
who may see it at that moment. A viewer that comes back reads from the table until it reaches the
tail, and goes on live from there: both follow the same cursor, so nothing is lost, doubled or out
of order in between.
"""

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import thread_time, time
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from anxin.db.alarms import Notice, Receipt, advance, keep_receipts, notices, oldest_cursor
from anxin.db.pool import Connection, Database, connect, doorbell
from anxin.db.residents import resident_ids, signs, stirred
from anxin.db.scope import EVERYTHING, Scope
from anxin.db.sessions import Authority, authorities_again
from anxin.errors import DatabaseUnavailable
from anxin.logs import log
from api.alarm_view import View, seen_alarm, view_of
from api.metrics import Metrics
from api.permissions import CONSENT, Right, scope_of
from api.rows import Row
from api.status import SILENCE, judge, seen_status
from api.viewer import CloseCode, Viewer
from api.wire import text_frame

PAGE: Final = 500
TAIL: Final = 2000
QUEUE: Final = 1000
LOOK_EVERY_S: Final = 1.0
CHECK_EVERY: Final = timedelta(seconds=5)
"""The doorbell tells at once that somebody's access has changed; it may be lost."""
PING_EVERY_S: Final = 5.0
SHOWN_S: Final = 3600
"""So often it is told anew whom a stream shows: a wall shows everybody all the time."""
# Ingest stamps a reading before it commits it, by its own clock: look back a little further.
OVERLAP: Final = timedelta(seconds=5)
STATUSES_AT_ONCE: Final = 200
FIRST_STATUSES: Final = 2000
"""A viewer is shown the status of so many residents when it comes; the others when they stir."""

_log = log(__name__)


@dataclass(slots=True)
class _Line:
    """A change in the tail, and its frame for each kind of viewer that has asked for it."""

    notice: Notice
    frames: dict[View, bytes] = field(default_factory=dict)

    def frame(self, view: View) -> bytes:
        """Return the frame for such a viewer, encoded at most once."""
        if view not in self.frames:
            self.frames[view] = alarm_frame(self.notice, view)
        return self.frames[view]


def alarm_frame(notice: Notice, view: View) -> bytes:
    """Return the frame of one change for one kind of viewer."""
    return _frame(
        {
            "type": "alarm",
            "cursor": notice.cursor,
            "change": notice.change,
            "alarm": seen_alarm(notice.alarm, view),
        }
    )


class Hub:
    """Everything between the timeline and the open streams of this process."""

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        showed: Callable[[Authority, int], None],
        *,
        queue: int = QUEUE,
        tail: int = TAIL,
    ) -> None:
        """Prepare; `queue` bounds each viewer's alarm frames, `tail` the changes kept in memory.

        `showed` is told of each resident whom a user is shown; not of every repeat.
        """
        self._database = database
        self._metrics = metrics
        self._showed = showed
        self._queue = queue
        self._most_kept = tail
        self._position: int | None = None
        self._floor = 0
        self._tail: deque[_Line] = deque()
        self._viewers: set[Viewer] = set()
        self._seats = _Seats()
        self._newcomers: set[Viewer] = set()
        self._changed: set[int] = set()
        self._shown: dict[int, int] = {}
        self._looked_at = datetime.now(UTC)
        self._checked_at: datetime | None = None
        self._ring = asyncio.Event()
        self._look = asyncio.Event()
        self._asking: list[asyncio.Future[int]] = []
        self._receipts: asyncio.Queue[Receipt] = asyncio.Queue(maxsize=10_000)
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether the hub still does its work; a process whose hub died must be replaced."""
        return self._task is not None and not self._task.done()

    @property
    def capacity(self) -> int:
        """How many alarm frames may wait for one viewer."""
        return self._queue

    async def __aenter__(self) -> Self:
        """Start to follow the timeline."""
        self._task = asyncio.create_task(self._run(), name="hub")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; receipts that wait are written first if the database is there."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(DatabaseUnavailable):
            await self._keep_waiting_receipts()
        await self._hang_up()

    def look_again(self) -> None:
        """Check sessions and statuses now rather than within a second."""
        self._checked_at = None
        self._look.set()

    @contextlib.contextmanager
    def watching(self, viewer: Viewer) -> Iterator[None]:
        """Count a viewer whose session is checked and who is pinged, and forget it at the end."""
        self._viewers.add(viewer)
        self._metrics.viewers.set(len(self._viewers))
        try:
            yield
        finally:
            self._viewers.discard(viewer)
            self._newcomers.discard(viewer)
            self._seats.leave(viewer)
            viewer.leave()
            self._metrics.viewers.set(len(self._viewers))

    async def begin(self, cursor: int | None) -> tuple[int, bool]:
        """Return where a viewer's stream begins, and whether its cursor cannot be served.

        Raise DatabaseUnavailable.
        """
        last = await self._up_to_date()
        if cursor is None:
            return last, False
        oldest = await oldest_cursor(self._database)
        kept = cursor == last if oldest is None else cursor + 1 >= oldest
        return (cursor, False) if kept and cursor <= last else (last, True)

    async def replay(self, viewer: Viewer) -> AsyncGenerator[bytes, None]:
        """Yield the frames between the viewer's position and the tail, from the table."""
        while viewer.position < self._floor:
            upto = self._position or 0
            scope = scope_of(viewer.user, "alarms.read")
            rows = await notices(
                self._database, scope, after=viewer.position, upto=upto, limit=PAGE
            )
            for notice in rows:
                viewer.position = notice.cursor
                self._note(viewer, notice.resident_id)
                yield alarm_frame(notice, view_of(viewer.user, notice.resident_id))
            if len(rows) < PAGE:
                viewer.position = max(viewer.position, upto)

    def go_live(self, viewer: Viewer) -> None:
        """Hand over the rest from the tail, and every change from now on.

        Nothing is awaited here, so the hub can add nothing between the two.
        """
        for line in self._tail:
            if line.notice.cursor > viewer.position and _belongs(
                viewer, line.notice.path, line.notice.resident_id
            ):
                self._offer(viewer, line)
        # From here on the hub's position is the viewer's.
        self._seats.enter(viewer)
        self._newcomers.add(viewer)
        # Its access may have changed between its hello and now.
        self._checked_at = None
        self._look.set()

    async def confirm(self, receipt: Receipt) -> None:
        """Take a viewer's receipt; waits while too many are unwritten."""
        await self._receipts.put(receipt)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="hub-doorbell")
            group.create_task(self._follow(), name="hub-timeline")
            group.create_task(self._watch(), name="hub-watch")
            group.create_task(self._ping(), name="hub-ping")
            group.create_task(self._keep_receipts(), name="hub-receipts")

    async def _listen(self) -> None:
        bells = ["anxin_alarm", "anxin_access"]
        async for bell in doorbell(self._database.dsn, bells, LOOK_EVERY_S):
            if bell == "anxin_access":
                self._checked_at = None
                self._look.set()
            else:
                self._ring.set()

    async def _follow(self) -> None:
        while True:
            await self._ring.wait()
            self._ring.clear()
            asking, self._asking = self._asking, []
            try:
                position = await self._catch_up()
            except DatabaseUnavailable as error:
                await self._hang_up()
                for future in asking:
                    if not future.done():
                        future.set_exception(error)
                continue
            for future in asking:
                if not future.done():
                    future.set_result(position)

    async def _catch_up(self) -> int:
        """Read everything that is committed now and hand it out; return the last cursor."""
        if self._connection is None:
            self._connection = await connect(
                self._database.dsn, autocommit=True, application="anxin stream"
            )
        last = await advance(self._connection)
        if self._position is None:
            self._position = self._floor = last
        if last < self._position:
            self._start_over(last)
        position = self._position
        while position < last:
            rows = await notices(
                self._connection, EVERYTHING, after=position, upto=last, limit=PAGE
            )
            self._hand_out(rows)
            position = self._position = rows[-1].cursor if len(rows) == PAGE else last
        return last

    def _hand_out(self, changes: Sequence[Notice]) -> None:
        """Give everybody what is theirs of these changes, in order, in one write if they keep up.

        Nothing is awaited here: who sits where at this moment is who is told.
        """
        told: defaultdict[Row | Viewer, list[bytes]] = defaultdict(list)
        shown: list[tuple[Row | Viewer, int | None]] = []
        for notice in changes:
            line = _Line(notice)
            for whom, view in self._seats.audience(notice.path, notice.resident_id, "alarms.read"):
                told[whom].append(line.frame(view))
                shown.append((whom, notice.resident_id))
            self._tail.append(line)
            if len(self._tail) > self._most_kept:
                self._floor = self._tail.popleft().notice.cursor
            if notice.resident_id is not None:
                self._changed.add(notice.resident_id)
        began_s = thread_time()
        for whom, frames in told.items():
            whom.offer_alarms(frames)
        self._metrics.writing_s.inc(thread_time() - began_s)
        for whom, resident_id in shown:
            self._note(whom, resident_id)
        now = datetime.now(UTC)
        for notice in changes:
            self._metrics.lag_s.observe(max((now - notice.at).total_seconds(), 0))

    def _offer(self, viewer: Viewer, line: _Line) -> None:
        resident_id = line.notice.resident_id
        if _consents(viewer, "alarms.read", resident_id):
            viewer.offer_alarms([line.frame(view_of(viewer.user, resident_id))])
            self._note(viewer, resident_id)

    def _note(self, whom: Row | Viewer, resident_id: int | None) -> None:
        """Say who is shown whom. A row says it once, as nearly always nothing is new."""
        if resident_id is None:
            return
        if isinstance(whom, Row):
            for viewer in whom.newly_shown(resident_id, int(time() // SHOWN_S)):
                self._showed(viewer.user, resident_id)
        else:
            self._showed(whom.user, resident_id)

    def _start_over(self, last: int) -> None:
        """Begin anew on a database whose stream is shorter than what was read: it was restored."""
        _log.warning("stream_went_back", position=self._position, last=last)
        self._tail.clear()
        self._position = self._floor = last
        for viewer in self._viewers:
            viewer.end(CloseCode.RESTART)

    async def _up_to_date(self) -> int:
        """Return the last cursor once everything committed before this call was read."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asking.append(future)
        self._ring.set()
        return await future

    async def _hang_up(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_next_look()):
                    await self._look.wait()
            self._look.clear()
            try:
                await self._check_sessions()
                await self._greet_newcomers()
                await self._show_statuses()
            except DatabaseUnavailable:
                # The next look covers this time too; `_looked_at` has not moved.
                continue

    def _until_next_look(self) -> float:
        """Return for how many seconds to rest: less when a consent of a viewer runs out sooner."""
        ends = [one.user.links_until for one in self._viewers if one.user.links_until is not None]
        if not ends:
            return LOOK_EVERY_S
        left = (min(ends) - datetime.now(UTC)).total_seconds()
        # The database decides, and its clock may be behind ours.
        return min(max(left, 0.05), LOOK_EVERY_S)

    async def _check_sessions(self) -> None:
        """End the streams of ended sessions; renew what viewers may see where it may differ."""
        now = datetime.now(UTC)
        viewers = list(self._viewers)
        for viewer in viewers:
            if viewer.user.expires_at <= now:
                viewer.end(CloseCode.LOGGED_OUT)
        ran_out = any(one.user.links_until and one.user.links_until <= now for one in viewers)
        if not ran_out and self._checked_at is not None and now - self._checked_at < CHECK_EVERY:
            return
        # Before the question: what changes while it is answered rings again.
        self._checked_at = now
        try:
            await self._renew(viewers)
        except DatabaseUnavailable:
            self._checked_at = None
            raise

    async def _renew(self, viewers: Sequence[Viewer]) -> None:
        if not viewers:
            return
        # By the number of the session: its token changes when its user steps up.
        known = await authorities_again(
            self._database, list({viewer.user.session_id for viewer in viewers})
        )
        for viewer in viewers:
            user = known.get(viewer.user.session_id)
            if user is None:
                viewer.end(CloseCode.LOGGED_OUT)
            elif user != viewer.user:
                seated = self._seats.leave(viewer)
                viewer.become(user)
                if seated:
                    self._seats.enter(viewer)
                    self._newcomers.add(viewer)
            else:
                viewer.user = user  # used now, so it ends later

    async def _greet_newcomers(self) -> None:
        """Show new viewers how everybody is; those with the same scope share the work."""
        newcomers, self._newcomers = self._newcomers, set()
        groups: defaultdict[Scope, set[Viewer]] = defaultdict(set)
        for viewer in newcomers:
            groups[scope_of(viewer.user, "status.read")].add(viewer)
        try:
            for scope, viewers in groups.items():
                ids = await resident_ids(self._database, scope, limit=FIRST_STATUSES)
                await self._show(ids, scope, only=viewers)
        except DatabaseUnavailable:
            self._newcomers |= newcomers & self._viewers
            raise

    async def _show_statuses(self) -> None:
        """Show every viewer the residents of whom something is new."""
        now = datetime.now(UTC)
        if not self._viewers:
            self._changed.clear()
            self._shown.clear()
            self._looked_at = now
            return
        fresh = await stirred(
            self._database,
            paths=self._seats.paths(),
            watched=self._seats.residents(),
            since=self._looked_at - OVERLAP,
            silence=SILENCE,
        )
        changed, self._changed = self._changed, set()
        try:
            await self._show(list(changed.union(fresh)), EVERYTHING)
        except DatabaseUnavailable:
            self._changed |= changed
            raise
        self._looked_at = now

    async def _show(
        self, ids: Sequence[int], scope: Scope, *, only: set[Viewer] | None = None
    ) -> None:
        for start in range(0, len(ids), STATUSES_AT_ONCE):
            found = await signs(self._database, scope, ids[start : start + STATUSES_AT_ONCE])
            told: defaultdict[Row | Viewer, dict[int, bytes]] = defaultdict(dict)
            for one in found:
                status = judge(one)
                if only is None:
                    newest = hash(msgspec.json.encode(status))
                    if self._shown.get(one.id) == newest:
                        continue
                    self._shown[one.id] = newest
                frames: dict[View, bytes] = {}
                for whom, view in self._seats.audience(one.path, one.id, "status.read", only=only):
                    if view not in frames:
                        seen = seen_status(status, view)
                        frames[view] = _frame(
                            {"type": "status", "resident_id": str(one.id), **seen}
                        )
                    told[whom][one.id] = frames[view]
                    self._note(whom, one.id)
            for whom, statuses in told.items():
                whom.offer_statuses(statuses)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            for row in self._seats.rows():
                row.ping()
            for viewer in self._viewers:
                if not self._seats.in_row(viewer):
                    viewer.ping()
            depths = (viewer.depth for viewer in self._viewers)
            self._metrics.queue_depth.set(max(depths, default=0))

    async def _keep_receipts(self) -> None:
        """Write receipts in groups: while one group is written, the next one gathers."""
        batch: list[Receipt] = []
        while True:
            if not batch:
                batch.append(await self._receipts.get())
            while len(batch) < PAGE and not self._receipts.empty():
                batch.append(self._receipts.get_nowait())
            try:
                await keep_receipts(self._database, batch)
            except DatabaseUnavailable:
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            self._metrics.receipts.inc(len(batch))
            batch = []

    async def _keep_waiting_receipts(self) -> None:
        batch = [self._receipts.get_nowait() for _ in range(self._receipts.qsize())]
        if batch:
            await keep_receipts(self._database, batch)


class _Seats:
    """Who may see what: staff in rows at the place they see the tree under, others by resident."""

    def __init__(self) -> None:
        self._by_path: defaultdict[str, dict[View, Row]] = defaultdict(dict)
        self._by_resident: defaultdict[int, set[Viewer]] = defaultdict(set)
        self._seated: dict[Viewer, Row | None] = {}

    def enter(self, viewer: Viewer) -> None:
        """Seat a viewer by what its user may see now."""
        row: Row | None = None
        if viewer.user.path is not None and viewer.view is not None:
            rows = self._by_path[viewer.user.path]
            row = rows.setdefault(viewer.view, Row(viewer.view))
            row.add(viewer)
        self._seated[viewer] = row
        for resident_id in viewer.user.links:
            self._by_resident[resident_id].add(viewer)

    def leave(self, viewer: Viewer) -> bool:
        """Take a viewer out; return whether it was seated."""
        if viewer not in self._seated:
            return False
        path, row = viewer.user.path, self._seated.pop(viewer)
        if path is not None and row is not None:
            row.remove(viewer)
            if not row:
                del self._by_path[path][row.view]
            if not self._by_path[path]:
                del self._by_path[path]
        for resident_id in viewer.user.links:
            self._by_resident[resident_id].discard(viewer)
            if not self._by_resident[resident_id]:
                del self._by_resident[resident_id]
        return True

    def audience(
        self, path: str, resident_id: int | None, right: Right, *, only: set[Viewer] | None = None
    ) -> Iterator[tuple[Row | Viewer, View]]:
        """Yield who may know of something at `path` about a resident, and how they see it.

        Whole rows of staff, and single relatives by their consent; with `only`, single viewers.
        """
        end = 0
        while (end := path.find("/", end) + 1) > 0:
            for view, row in self._by_path.get(path[:end], {}).items():
                if only is None:
                    yield row, view
                else:
                    yield from ((one, view) for one in only if self._seated.get(one) is row)
        if resident_id is not None:
            for viewer in self._by_resident.get(resident_id, ()):
                asked = only is None or viewer in only
                if asked and _consents(viewer, right, resident_id):
                    yield viewer, view_of(viewer.user, resident_id)

    def rows(self) -> Iterator[Row]:
        """Yield every row."""
        for rows in self._by_path.values():
            yield from rows.values()

    def in_row(self, viewer: Viewer) -> bool:
        """Tell whether a viewer is reached through its row."""
        return self._seated.get(viewer) is not None

    def paths(self) -> list[str]:
        """Return the places under which somebody watches."""
        return list(self._by_path)

    def residents(self) -> list[int]:
        """Return the residents whom a relative watches."""
        return list(self._by_resident)


def _belongs(viewer: Viewer, path: str, resident_id: int | None) -> bool:
    """Tell whether a viewer is of the audience of something at `path` about a resident."""
    under = viewer.user.path is not None and path.startswith(viewer.user.path)
    return under or resident_id in viewer.user.links


def _consents(viewer: Viewer, right: Right, resident_id: int | None) -> bool:
    if viewer.user.role != "family":
        return True
    consent = viewer.user.links.get(resident_id, frozenset()) if resident_id else frozenset()
    return CONSENT[right] in consent


def _frame(content: Any) -> bytes:  # noqa: ANN401  # whatever msgspec can encode
    return text_frame(msgspec.json.encode(content))
