"""A whole platform for a measurement: `anxin up` on loopback, in a directory of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from anxin.config import Address
from anxin.embedded import free_port, port_is_free
from anxin.errors import AnxinError, PortTaken

ADMIN_PASSWORD = "only-for-this-measurement"  # noqa: S105 - of a throw-away database on loopback
_READY = re.compile(r"ready http=(\S+) mqtt=(\S+)")
_READY_SECONDS = 90.0
_STOP_SECONDS = 60.0


class StackFailed(AnxinError):
    """`anxin up` did not start or ended by itself. Its last words follow."""


class Stack:
    """One process tree of `anxin up`; it can be killed and started again on the same data."""

    def __init__(
        self,
        http: str = "127.0.0.1:0",
        mqtt: str = "127.0.0.1:0",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a stack on `http` and `mqtt` (port 0: a free one); raise PortTaken."""
        self.http = _own(http)
        self.mqtt = _own(mqtt)
        # The server's user must be able to enter, so the directory is not as private as usual.
        self.directory = Path(tempfile.mkdtemp(prefix="anxin-"))
        self.directory.chmod(0o711)
        self._environ = dict(environ or {})
        self._process: subprocess.Popen[str] | None = None

    @property
    def data(self) -> Path:
        """The data directory, as given to `anxin up`."""
        return self.directory / "data"

    @property
    def dsn(self) -> str:
        """The address of the embedded database."""
        password = (self.data / "postgres.password").read_text(encoding="ascii").strip()
        port = (self.data / "postgres.port").read_text(encoding="ascii").strip()
        return f"postgresql://anxin:{password}@127.0.0.1:{port}/anxin"

    def start(self) -> None:
        """Start the tree and return when it says that it is ready; raise StackFailed."""
        with self._log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "anxin.cli", "up", *self._arguments()],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                process_group=0,
                env={
                    **os.environ,
                    "ANXIN_ADMIN_PASSWORD": ADMIN_PASSWORD,
                    "ANXIN_DEVICE_RATE": "0",
                    **self._environ,
                },
            )
        self._process = process
        ready = threading.Event()
        threading.Thread(target=_watch, args=(process, ready), name="stack output").start()
        deadline = time.monotonic() + _READY_SECONDS
        while not ready.wait(0.05):
            if process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise StackFailed(f"`anxin up` did not get ready.\n{self.last_words()}")

    def check(self) -> None:
        """Raise StackFailed when the tree has ended by itself."""
        if self._process is None or self._process.poll() is not None:
            raise StackFailed(f"`anxin up` ended by itself.\n{self.last_words()}")

    def processes(self, role: str) -> list[psutil.Process]:
        """Return the running processes of a role: `ingest`, `api`, `worker` or `postgres`."""
        return [process for process in self._children() if _role(process) == role]

    def tree(self) -> list[psutil.Process]:
        """Return every process of the tree, the supervisor first."""
        if self._process is None:
            return []
        try:
            supervisor = psutil.Process(self._process.pid)
            return [supervisor, *supervisor.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self, role: str) -> float:
        """Return the processor time of a role so far, its children included."""
        total = 0.0
        for process in self.processes(role):
            for one in [process, *process.children(recursive=True)]:
                try:
                    times = one.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                total += times.user + times.system
            # What ended and was waited for counts with its parent.
            times = process.cpu_times()
            total += times.children_user + times.children_system
        return total

    def kill_tree(self) -> list[int]:
        """Kill every process at once, the supervisor first; return their ids when all are gone."""
        victims = self.tree()
        for victim in victims:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
        if self._process is not None:
            self._process.wait()
        psutil.wait_procs(victims, timeout=_STOP_SECONDS)
        return [victim.pid for victim in victims]

    def end(self) -> int:
        """End the tree in order and return its exit code; kill what does not end."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill_tree()
            code = -signal.SIGKILL
        self._process = None
        return code

    def last_words(self) -> str:
        """Return the end of what the tree wrote to standard error."""
        if not self._log.exists():
            return "It said nothing."
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def __enter__(self) -> Self:
        """Start the tree."""
        try:
            self.start()
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the tree and forget its data."""
        self.end()
        cluster = (self.data / "postgres").resolve()
        shutil.rmtree(cluster, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self.directory / "up.log"

    def _arguments(self) -> list[str]:
        return [
            *("--data-dir", str(self.data)),
            *("--http", str(self.http)),
            *("--mqtt", str(self.mqtt)),
        ]

    def _children(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        try:
            return psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return []


def _own(text: str) -> Address:
    """Return an address that nobody listens on; raise PortTaken."""
    address = Address.parse(text)
    if address.port == 0:
        return Address(address.host, free_port(address.host))
    if not port_is_free(address.host, address.port):
        raise PortTaken(f"{address} is in use. Stop the other program or choose another port.")
    return address


def _role(process: psutil.Process) -> str:
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    if words and Path(words[0]).name.startswith("postgres"):
        return "postgres"
    return next((word for word in words if word in {"ingest", "api", "worker"}), "")


def _watch(process: "subprocess.Popen[str]", ready: threading.Event) -> None:
    """Read standard output to its end, so that a full pipe never stops the tree."""
    assert process.stdout is not None  # noqa: S101 - it was opened with a pipe
    with process.stdout as output:
        for line in output:
            if _READY.match(line):
                ready.set()
