"""The clock of the services, moved without touching the machine's: `clock.c`, preloaded."""

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).parent / "clock.c"


class Clock:
    """A clock that jumps; ingest, worker and api read it, Postgres keeps the machine's own."""

    def __init__(self, directory: Path) -> None:
        """Build the clock under `directory`, where there is a C compiler."""
        self._library = directory / "clock.so"
        self._setting = directory / "clock"
        self.set(0)
        compiler = shutil.which(os.environ.get("CC", "cc"))
        self.there = compiler is not None and self._compile(compiler)

    @property
    def environ(self) -> Mapping[str, str]:
        """What a process needs in order to read this clock."""
        if not self.there:
            return {}
        return {"LD_PRELOAD": str(self._library), "ANXIN_CHAOS_CLOCK": str(self._setting)}

    def set(self, offset_seconds: int) -> None:
        """Let the clock be so much ahead of the machine's from now on."""
        # Written over, not replaced: the processes look at this very file.
        with self._setting.open("r+b" if self._setting.exists() else "wb") as file:
            file.write(struct.pack("=q", offset_seconds))

    def _compile(self, compiler: str) -> bool:
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(_SOURCE)]
        return subprocess.run([*command, "-ldl"], capture_output=True, check=False).returncode == 0
