"""A real `anxin ingest` in front of a real database, with simulated devices enrolled."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import psycopg

from anxin.device_secret import new_secret
from device_sim.provision import Device, Resident, Roster, write_roster
from tests.waiting import wait_until


class IngestAlone:
    """`anxin ingest` as a process that may be killed and started again on the same port."""

    def __init__(self, dsn: str, port: int, log: Path) -> None:
        """Take a migrated database and a free port; nothing is started yet."""
        self._dsn, self.mqtt, self._port, self._log = dsn, f"127.0.0.1:{port}", port, log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start and wait until devices can connect."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it cleanly; fail when it printed a traceback."""
        self.stop(signal.SIGTERM)
        said = self._log.read_text("utf-8")
        assert "Traceback (most recent call last)" not in said, said

    def start(self) -> None:
        """Start the process."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "anxin.cli", "ingest", "--mqtt", self.mqtt],
                env=os.environ
                | {"ANXIN_DATABASE": self._dsn, "ANXIN_DATA_DIR": str(self._log.parent)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, 30, "ingest listens")

    def stop(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text("utf-8")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


def enrol(dsn: str, devices: Iterable[tuple[str, str, str | None]], file: Path, mqtt: str) -> None:
    """Store devices (id, kind, name of the resident) and write their devices file."""
    ready: list[Device] = []
    residents: dict[str, Resident] = {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        (place,) = connection.execute(
            "INSERT INTO places (kind, name) VALUES ('facility', 'test') RETURNING id"
        ).fetchone() or (None,)
        for id_, kind, name in devices:
            secret, salt, hashed = new_secret()
            (key,) = connection.execute(
                "INSERT INTO devices (id, kind, place_id, salt, secret_hash) "
                "VALUES (%s, %s, %s, %s, %s) RETURNING key",
                (id_, kind, place, salt, hashed),
            ).fetchone() or (None,)
            if name is not None and name not in residents:
                (number,) = connection.execute(
                    "INSERT INTO residents (name, place_id) VALUES (%s, %s) RETURNING id",
                    (name, place),
                ).fetchone() or (None,)
                residents[name] = Resident(str(number), name)
            resident = residents[name] if name is not None else None
            if resident is not None:
                connection.execute(
                    "INSERT INTO assignments (device_key, resident_id, during) "
                    "VALUES (%s, %s, tstzrange('2000-01-01', NULL))",
                    (key, resident.id),
                )
            ready.append(Device(id_, secret, kind, resident))
    write_roster(file, Roster(tuple(ready), mqtt))


def anxin(*words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of the console to its end."""
    return subprocess.run(
        [sys.executable, "-m", "anxin.cli", *words],
        env=os.environ | (environ or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
