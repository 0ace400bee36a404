"""The clock of the services, moved without touching the machine's: libfaketime, where it is."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_NAME: Final = "faketime/libfaketimeMT.so.1"
_PLACES: Final = (
    f"/usr/lib/x86_64-linux-gnu/{_NAME}",
    f"/usr/lib/aarch64-linux-gnu/{_NAME}",
    f"/usr/lib/{_NAME}",
)


class Clock:
    """A clock that jumps; ingest, worker and api read it, Postgres keeps the machine's own."""

    def __init__(self, directory: Path) -> None:
        """Look for the library, in ANXIN_FAKETIME first; its setting lives under `directory`."""
        named = os.environ.get("ANXIN_FAKETIME")
        places = [named] if named else _PLACES
        self._library = next((place for place in places if Path(place).exists()), None)
        self._setting = directory / "clock"

    @property
    def there(self) -> bool:
        """Whether the clock can jump."""
        return self._library is not None

    @property
    def environ(self) -> Mapping[str, str]:
        """What a process needs in order to read this clock."""
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": str(self._setting),
            # A jump counts at once, and only for the time of day: no sleep is cut short.
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset_seconds: int) -> None:
        """Let the clock be so much ahead of the machine's from now on."""
        other = self._setting.with_suffix(".new")
        other.write_text(f"{offset_seconds:+d}\n", encoding="ascii")
        other.replace(self._setting)
