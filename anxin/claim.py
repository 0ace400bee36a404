"""Sole use of a directory: one running Anxin at a time, also after `kill -9`."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from anxin.errors import AnxinError


class DirectoryTaken(AnxinError):
    """The data directory is in use by another running Anxin. Stop it or choose another one."""


class Claim:
    """An advisory lock on a file, held until `release` or the end of the process."""

    def __init__(self, file: Path) -> None:
        """Take the lock; raise DirectoryTaken, naming the process that holds it."""
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 20, 0).decode().strip() or "unknown"
            os.close(self._descriptor)
            raise DirectoryTaken(
                f"{file.parent} is in use by another running Anxin (process {holder}). "
                "Stop it or choose another directory with --data-dir."
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        """Hold the directory during a `with` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go."""
        self.release()
