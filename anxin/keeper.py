"""Programs that are kept running: started, watched, started again, and ended in order.

A keeper owns one program in one thread that lives as long as the program does, because the leash
ends a program together with the thread that started it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Protocol

from anxin.embedded import leashed
from anxin.errors import AnxinError
from anxin.logs import log

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""A program that ran so long has forgiven its earlier deaths."""

_READY_SECONDS = 60.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05

_log = log(__name__)


class ServiceFailed(AnxinError):
    """A service ended before it was ready. Its own last words say why."""


class Program(Protocol):
    """What a keeper can keep; `anxin.embedded.EmbeddedPostgres` is one as well."""

    def start(self) -> object:
        """Start it and wait until it is ready; raise AnxinError when it cannot be."""

    def wait(self) -> int | None:
        """Wait until it ends and return its exit code."""

    def stop(self) -> None:
        """End it, politely and then firmly, and return when it is gone."""

    def abort(self) -> None:
        """Tell it to end at once, without waiting."""


class Service:
    """One of our own commands as a process: `python -m anxin.cli ARGUMENTS`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        ready: Callable[[], bool] = lambda: True,
        output: Path | None = None,
    ) -> None:
        """Describe a process; `ready` is asked until it says yes.

        What it says goes to our standard error, or to the file `output`, emptied at each start.
        """
        self.name = name
        self._output = output
        self._command = command
        self._environment = environment
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready; raise ServiceFailed when it cannot be."""
        with self._output.open("wb") if self._output else nullcontext(sys.stderr) as output:
            process = self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                leashed(self._command, signal.SIGKILL),
                stdin=subprocess.DEVNULL,
                # Our standard output is for people; what a service says there is a log as well.
                stdout=output,
                stderr=output,
                env=self._environment,
                process_group=0,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._ready():
            if process.poll() is not None:
                raise ServiceFailed(
                    f"anxin {self.name} ended with code {process.returncode} before it was ready. "
                    "Its last words are above."
                )
            if time.monotonic() > deadline:
                self.stop()
                raise ServiceFailed(
                    f"anxin {self.name} was not ready after {_READY_SECONDS:.0f} s. "
                    "See its lines above, and `anxin doctor`."
                )
            time.sleep(_POLL_SECONDS)

    def wait(self) -> int | None:
        """Wait until it ends and return its exit code."""
        return self._process.wait() if self._process else None

    def stop(self) -> None:
        """Ask it to end; after a while end it and whatever it started."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.abort()
            process.wait()
            with suppress(OSError):
                _log.warning("service_killed", service=self.name, pid=process.pid)

    def abort(self) -> None:
        """Kill its process group."""
        process = self._process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


class Keeper:
    """Keeps one program running in a thread of its own."""

    def __init__(self, name: str, program: Program) -> None:
        """Prepare to keep `program`; nothing starts before `start`."""
        self.name = name
        self._program = program
        self._fault: AnxinError | OSError | None = None
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keeper of {name}", daemon=True)

    def start(self) -> None:
        """Begin; `await_ready` tells how it went."""
        self._thread.start()

    def await_ready(self) -> None:
        """Wait until the program is ready for the first time; raise what kept it from it."""
        self._settled.wait()
        if self._fault is not None:
            raise self._fault

    def release(self) -> None:
        """From now on an end of the program is no reason to start it again."""
        self._stopping.set()

    def stop(self) -> None:
        """End the program and the thread."""
        self.release()
        while self._thread.is_alive():
            # Again and again, because the thread may have been about to start the program.
            self._program.stop()
            self._thread.join(_POLL_SECONDS)

    def abort(self) -> None:
        """Tell the program to end at once."""
        self.release()
        self._program.abort()

    def _keep(self) -> None:
        pause_seconds = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._program.start()
                self._settled.set()
                code = self._program.wait()
            except (AnxinError, OSError) as error:
                if not self._settled.is_set():
                    self._fault = error
                    self._settled.set()
                    return
                if self._stopping.is_set():
                    return
                # A lost terminal must not cost us the supervision.
                with suppress(OSError):
                    _log.error("service_does_not_start", service=self.name, reason=str(error))
            else:
                if self._stopping.is_set():
                    return
                with suppress(OSError):
                    _log.warning("service_ended", service=self.name, exit_code=code)
            if time.monotonic() - began > STEADY_SECONDS:
                pause_seconds = FIRST_PAUSE_SECONDS
            self._stopping.wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
