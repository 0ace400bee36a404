"""`anxin up`: every service as one supervised process tree.

    anxin up
      postgres            the embedded one, unless a DSN is given
      anxin ingest        MQTT
      anxin api           HTTP, pages, WebSocket
      anxin worker        ticks, deliveries, upkeep of the database
      anxin simulate      `anxin demo` only

A dead child is started again; a dead parent takes every child with it. Each service has a login of
its own at the database, with a new password at each start, and only those secrets that it needs.
"""

import argparse
import errno
import http.client
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event
from types import FrameType, TracebackType
from typing import Final, Self

from anxin.claim import Claim
from anxin.config import SECRETS, Address, Settings
from anxin.db.logins import make_logins
from anxin.db.migrate import migrate
from anxin.db.users import ensure_user
from anxin.embedded import EmbeddedPostgres, free_port, write_private
from anxin.errors import PortTaken, SettingError
from anxin.keeper import Keeper, Program, Service
from anxin.keys import ensure_keys
from anxin.logs import log

STOP_ORDER: Final = ("simulate", "ingest", "api", "worker", "postgres")
LOGINS: Final[Mapping[str, Mapping[str, str]]] = {
    "ingest": {"ANXIN_DATABASE": "anxin_ingest"},
    "api": {"ANXIN_DATABASE": "anxin_api", "ANXIN_DATABASE_DOOR": "anxin_door"},
    "worker": {"ANXIN_DATABASE": "anxin_worker"},
}
"""What each service is at the database, by the variable that names its login."""
SECRETS_OF: Final[Mapping[str, frozenset[str]]] = {
    "ingest": frozenset(),
    "api": frozenset({"data_keys", "oidc", "receipt_token", "vapid_private_key"}),
    "worker": frozenset({
        "audit_key", "receipt_token", "wechat_secret", "aliyun_key_secret", "tencent_secret_key",
        "voice_secret", "vapid_private_key", "smtp_password",
    }),
    "simulate": frozenset(),
}  # fmt: skip
"""The secret settings that a service is given; the others are kept from it."""

_LOG_CHECK_SECONDS = 60.0
_EASY_TO_TYPE = "abcdefghijkmnpqrstuvwxyz23456789"

_log = log(__name__)


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - every command's form
    """Run everything until somebody asks to stop."""
    stack = Stack(settings)
    with ended_by_signals(at_once=stack.abort), stack:
        stack.announce()
        stack.serve()
    return 0


class Stack:
    """The process tree of one data directory; entering it starts everything, leaving ends it."""

    def __init__(
        self,
        settings: Settings,
        admin_password: str = "",
        defaults: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare the tree; `admin_password` is that of `admin` at the first start.

        `defaults` are variables for the services where our own environment has none.
        """
        self.settings = settings
        self.directory = Path(settings.data_dir).absolute()
        self.http = Address.parse(settings.http)
        self.mqtt = Address.parse(settings.mqtt)
        self.dsn = settings.database
        self._admin_password = admin_password or settings.admin_password
        self._defaults = dict(defaults or {})
        self._keepers: dict[str, Keeper] = {}
        self._logins: dict[str, str] = {}
        self._postgres: EmbeddedPostgres | None = None
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        """Start everything and return when all of it serves."""
        with ExitStack() as cleanup:
            self._make_directory()
            cleanup.enter_context(Claim(self.directory / "lock"))
            self._take_ports()
            ensure_keys(self.settings)
            cleanup.callback(self._stop)
            if not self.dsn:
                self.dsn = self._start_postgres()
            migrate(self.dsn)
            self._ensure_admin()
            roles = [role for logins in LOGINS.values() for role in logins.values()]
            self._logins = make_logins(self.dsn, roles, self._instance())
            for name, ready in (
                ("ingest", lambda: _listens(self.mqtt)),
                ("api", lambda: _is_ready(self.http)),
                ("worker", lambda: True),
            ):
                self.keep(name, Service(name, command(name), self.environment(name), ready))
            for keeper in self._keepers.values():
                keeper.await_ready()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything, in order."""
        self._cleanup.close()

    def keep(self, name: str, program: Program) -> Keeper:
        """Start a program and keep it running from now on."""
        keeper = self._keepers[name] = Keeper(name, program)
        keeper.start()
        return keeper

    def announce(self) -> None:
        """Print the one line that programs wait for."""
        print(f"ready http={self.http} mqtt={self.mqtt}", flush=True)

    def serve(self) -> None:
        """Wait until somebody asks to stop, which arrives as KeyboardInterrupt."""
        never = Event()
        while not never.wait(_LOG_CHECK_SECONDS):
            if self._postgres is not None:
                self._postgres.bound_log()

    def abort(self) -> None:
        """Tell every program to end at once; for the impatient."""
        for keeper in list(self._keepers.values()):
            keeper.abort()

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a service: ours, with the real addresses and its own logins.

        Of secrets only its own: not the administrator's password, not the keys of others.
        """
        hidden = {f"ANXIN_{field.upper()}" for field in SECRETS if field not in SECRETS_OF[service]}
        hidden |= {f"{name}_FILE" for name in hidden} | {"PGPASSWORD", "PGPASSFILE", "PGUSER"}
        kept = {name: text for name, text in os.environ.items() if name not in hidden}
        root = str(Path(__file__).resolve().parent.parent)
        return {
            **self._defaults,
            **kept,
            **{name: self._logins[role] for name, role in LOGINS.get(service, {}).items()},
            "ANXIN_DATA_DIR": str(self.directory),
            "ANXIN_HTTP": str(self.http),
            "ANXIN_MQTT": str(self.mqtt),
            "PYTHONPATH": os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH")))),
        }

    def _instance(self) -> str:
        """Return what tells our logins from those of another installation on the same server."""
        file = self.directory / "instance"
        if not file.exists():
            write_private(file, secrets.token_hex(4))
        return file.read_text(encoding="ascii").strip()

    def _make_directory(self) -> None:
        try:
            # Enterable by the user that Postgres runs as; what is private is so file by file.
            self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(
                f"The data directory {self.directory} cannot be made: {error.strerror}. "
                "Choose another one with --data-dir."
            ) from error

    def _take_ports(self) -> None:
        """Settle on real addresses before anything starts; raise PortTaken or SettingError."""
        self.http = _settle(self.http, "HTTP", "--http")
        self.mqtt = _settle(self.mqtt, "MQTT", "--mqtt")
        for text, name in (
            (self.settings.mqtts, "ANXIN_MQTTS"),
            (self.settings.ingest_metrics, "ANXIN_INGEST_METRICS"),
            (self.settings.worker_metrics, "ANXIN_WORKER_METRICS"),
        ):
            if text:
                _settle(Address.parse(text), name, name)

    def _start_postgres(self) -> str:
        self._postgres = EmbeddedPostgres(self.directory, self.settings.postgres_port)
        self.keep("postgres", self._postgres).await_ready()
        return self._postgres.dsn

    def _ensure_admin(self) -> None:
        password = self._admin_password or easy_password()
        if ensure_user(self.dsn, "admin", password, "admin") and not self._admin_password:
            sys.stderr.write(
                f"First start: user admin, password {password} (shown only now; change it soon)\n"
            )

    def _stop(self) -> None:
        for keeper in self._keepers.values():
            keeper.release()
        for name in STOP_ORDER:
            if name in self._keepers:
                self._keepers[name].stop()


def command(name: str, *arguments: str) -> list[str]:
    """Return the command line of one of our own commands; -P keeps the working directory out."""
    return [sys.executable, "-P", "-m", "anxin.cli", name, *arguments]


def local(address: Address) -> Address:
    """Return the address at which this machine reaches a listener on `address`."""
    return Address(
        {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host), address.port
    )


def easy_password() -> str:
    """Return a password of 60 bits that a person can type from paper."""
    return "".join(secrets.choice(_EASY_TO_TYPE) for _ in range(12))


@contextmanager
def ended_by_signals(at_once: Callable[[], None]) -> Iterator[None]:
    """Turn the first Ctrl-C, SIGTERM or closed terminal into a clean end; the second one calls."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Unless started with nohup.
        numbers.append(signal.SIGHUP)

    def first(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, again)
        raise KeyboardInterrupt

    def again(_number: int, _frame: FrameType | None) -> None:
        at_once()

    before = [signal.signal(number, first) for number in numbers]
    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError):
            _log.info("stopped")
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _settle(address: Address, name: str, option: str) -> Address:
    """Return the address with a real port; raise PortTaken or SettingError naming the option."""
    if address.port == 0:
        return Address(address.host, free_port(address.host))
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"{name}: {address} is in use. Stop the other program, or choose another address "
                f"with {option}."
            ) from error
        raise SettingError(
            f"{name}: cannot listen on {address}: {error.strerror}. "
            f"Choose another address with {option}."
        ) from error
    return address


def _listens(address: Address) -> bool:
    target = local(address)
    try:
        with socket.create_connection((target.host, target.port), timeout=1):
            return True
    except OSError:
        return False


def _is_ready(address: Address) -> bool:
    target = local(address)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
