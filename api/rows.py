"""A row of viewers who see alike: what is for one of them is, byte for byte, for all.

Those who keep up stand abreast: what they may see is decided once for the row, and each costs one
write into its socket and nothing else, for a thousand viewers are a thousand times whatever is
looked at here. Who falls behind leaves that line, gets the rest through its own queue, and comes
back when nothing waits for it.
"""

import os
from array import array
from collections.abc import Sequence
from typing import Final

from api.alarm_view import View
from api.viewer import PING, Viewer

TOGETHER: Final = 50
"""So many frames go in one write at most: what a peer does not take of it is kept for that peer."""


class Row:
    """The viewers at one place who see alike."""

    def __init__(self, view: View) -> None:
        """Begin without anybody."""
        self.view = view
        self._abreast: dict[Viewer, int] = {}
        self._behind: set[Viewer] = set()
        self._descriptors = array("i")
        self._stale = False
        self._shown: set[int] = set()
        self._hour = 0

    def __bool__(self) -> bool:
        """Tell whether anybody is here."""
        return bool(self._abreast or self._behind)

    def add(self, viewer: Viewer) -> None:
        """Take a viewer in; it says by itself when it falls behind or has caught up."""
        self._shown.clear()
        self._behind.add(viewer)
        viewer.on_change = self._place
        self._place(viewer)

    def remove(self, viewer: Viewer) -> None:
        """Let a viewer go."""
        viewer.on_change = None
        self._behind.discard(viewer)
        if self._abreast.pop(viewer, None) is not None:
            self._stale = True

    def newly_shown(self, resident_id: int, hour: int) -> Sequence[Viewer]:
        """Return everybody here, or nobody if somebody was shown to all of them in this hour."""
        if hour != self._hour:
            self._hour = hour
            self._shown.clear()
        if resident_id in self._shown:
            return ()
        self._shown.add(resident_id)
        return (*self._abreast, *self._behind)

    def offer_alarms(self, frames: Sequence[bytes]) -> None:
        """Send alarm frames to everybody, in this order."""
        for start in range(0, len(frames), TOGETHER):
            some = frames[start : start + TOGETHER]
            for viewer in self._write(b"".join(some)):
                viewer.offer_alarms(some)

    def offer_statuses(self, frames: dict[int, bytes]) -> None:
        """Send the statuses of residents, by their numbers, to everybody."""
        ids = list(frames)
        for start in range(0, len(ids), TOGETHER):
            some = {one: frames[one] for one in ids[start : start + TOGETHER]}
            for viewer in self._write(b"".join(some.values())):
                viewer.offer_statuses(some)

    def ping(self) -> None:
        """Send a ping to everybody."""
        for viewer in self._write(PING):
            viewer.ping()

    def _place(self, viewer: Viewer) -> None:
        """Put a viewer where it belongs now."""
        descriptor = viewer.descriptor
        if descriptor is None:
            self._behind.add(viewer)
            self._stale |= self._abreast.pop(viewer, None) is not None
        elif viewer in self._behind:
            self._behind.remove(viewer)
            self._abreast[viewer] = descriptor
            self._stale = True

    def _write(self, data: bytes) -> tuple[Viewer, ...]:
        """Write to those abreast; return those who were behind already and have not got it."""
        behind = tuple(self._behind)
        if self._stale:
            # Numbers side by side: the viewers themselves are not touched on the way.
            self._descriptors = array("i", self._abreast.values())
            self._stale = False
        size = len(data)
        short: dict[int, int] = {}
        for descriptor in self._descriptors:
            try:
                if (sent := os.write(descriptor, data)) != size:
                    short[descriptor] = sent
            except OSError:
                # Full, or broken, which the transport finds out when it tries.
                short[descriptor] = 0
        if short:
            rest = memoryview(data)
            for viewer, descriptor in tuple(self._abreast.items()):
                if descriptor in short:
                    viewer.put(rest[short[descriptor] :])
        return behind
