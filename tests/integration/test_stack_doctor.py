"""`anxin doctor` finds what is wrong and says what to do about it."""

import argparse
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from anxin import doctor
from anxin.config import Settings, read_settings
from anxin.doctor import Verdict


def _settings(directory: Path, **more: Any) -> Settings:
    # Port 1 is nobody's.
    plain = {"data_dir": str(directory), "http": "127.0.0.1:1", "mqtt": "127.0.0.1:1"}
    return read_settings({}, **(plain | more))


def _texts(settings: Settings, verdict: Verdict) -> list[str]:
    return [
        f"{finding.subject}: {finding.text}"
        for finding in doctor.examine(settings)
        if finding.verdict is verdict
    ]


def test_healthy_machine_has_no_fault_and_exit_code_0(
    dsn: str, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.run(argparse.Namespace(), _settings(data_dir, database=dsn)) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ok +database +PostgreSQL 1\d", said, re.MULTILINE)
    assert re.search(r"^note +database +no TimescaleDB", said, re.MULTILINE)
    assert said.endswith("all well\n")


def test_fault_gives_exit_code_1(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = _settings(data_dir, database="postgresql://x@127.0.0.1:1/x")
    assert doctor.run(argparse.Namespace(), settings) == 1
    assert "FAULT database       The database does not answer" in capsys.readouterr().out


def test_embedded_binaries_are_run(data_dir: Path) -> None:
    good = _texts(_settings(data_dir), Verdict.GOOD)
    assert any(re.match(r"postgres: postgres \(PostgreSQL\) 1\d", text) for text in good)


def test_missing_migrations_are_a_fault(empty_dsn: str, data_dir: Path) -> None:
    faults = _texts(_settings(data_dir, database=empty_dsn), Verdict.FAULT)
    assert len(faults) == 1
    assert "run `anxin migrate`" in faults[0]


def test_newer_schema_is_a_fault(dsn: str, data_dir: Path) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES ('9999_future')")
    faults = _texts(_settings(data_dir, database=dsn), Verdict.FAULT)
    assert faults == [
        "database: The database was migrated by a newer Anxin than this one. Install that version."
    ]


def test_clocks_apart_are_a_fault(
    dsn: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 60)
    faults = _texts(_settings(data_dir, database=dsn), Verdict.FAULT)
    assert len(faults) == 1
    assert re.match(r"database: its clock is (59|60)\.\d\d s behind ours.*NTP", faults[0])


def test_port_of_another_program_is_a_fault(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=_hang_up, args=(other,), daemon=True).start()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        faults = _texts(_settings(data_dir, http=address, mqtt=address), Verdict.FAULT)
        other.shutdown(socket.SHUT_RDWR)
    assert [fault.partition(": stop it")[0] for fault in faults] == [
        f"http: {address} is in use by another program",
        f"mqtt: {address} is in use by another program",
    ]


def _hang_up(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


def test_full_disk_is_a_fault(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(data_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    faults = _texts(_settings(data_dir), Verdict.FAULT)
    assert [fault.split(":")[0] for fault in faults] == ["data"]


def test_other_version_than_locked_is_a_fault(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: "0.1" if name == "psycopg" else None)
    faults = _texts(_settings(data_dir), Verdict.FAULT)
    assert re.search(r"packages: not as locked: .*psycopg 0\.1, not 3", faults[0])


def _certificate(directory: Path, days: int) -> dict[str, str]:
    """Make a self-signed pair that is valid for so many days."""
    key, certificate = directory / "key.pem", directory / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(
        [*command.split(), *files, "-subj", "/CN=anxin.test", "-days", str(days)],
        check=True,
        capture_output=True,
    )
    return {"mqtts": "127.0.0.1:1", "tls_cert": str(certificate), "tls_key": str(key)}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_certificates_are_checked_for_time_and_fit(data_dir: Path, tmp_path: Path) -> None:
    long = _settings(data_dir, **_certificate(tmp_path, 100))
    assert any(
        re.match(r"tls: the certificate expires in (99|100) days$", text)
        for text in _texts(long, Verdict.GOOD)
    )
    short = _settings(data_dir, **_certificate(tmp_path, 5))
    assert any("days: renew it" in text for text in _texts(short, Verdict.NOTE))

    other = tmp_path / "other"
    other.mkdir()
    mixed = _certificate(tmp_path, 100) | {"tls_key": _certificate(other, 100)["tls_key"]}
    for broken in (mixed, mixed | {"tls_cert": str(tmp_path / "absent.pem")}, {"mqtts": ":1"}):
        faults = _texts(_settings(data_dir, **broken), Verdict.FAULT)
        assert [fault.split(":")[0] for fault in faults] == ["tls"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_client_authorities_and_what_they_took_back_are_checked(
    data_dir: Path, tmp_path: Path
) -> None:
    authority = Path(_certificate(tmp_path, 100)["tls_cert"])
    key, empty = authority.with_name("key.pem"), tmp_path / "index"
    empty.touch()
    config = tmp_path / "ca.cnf"
    config.write_text(
        f"[ca]\ndefault_ca=a\n[a]\ndatabase={empty}\ndefault_md=sha256\ndefault_crl_days=9\n"
    )
    made = tmp_path / "list.crl"

    def revocations(*more: str) -> None:
        command = [
            *("openssl", "ca", "-config", str(config), "-gencrl", "-keyfile", str(key)),
            *("-cert", str(authority), "-out", str(made), *more),
        ]
        subprocess.run(command, check=True, capture_output=True)

    revocations()
    settings = _settings(data_dir, tls_client_ca=str(authority), tls_client_crl=str(made))
    said = [text for text in _texts(settings, Verdict.GOOD) if text.startswith("tls clients")]
    assert re.search(r"client authority \S+ expires in (99|100) days$", said[0])
    assert said[1] == "tls clients: 0 certificate(s) of devices are taken back"
    revocations("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z")
    assert any("the list is overdue" in text for text in _texts(settings, Verdict.FAULT))
    made.write_text("nothing")
    assert any("is no revocation list" in text for text in _texts(settings, Verdict.FAULT))
    other = tmp_path / "other"
    other.mkdir()
    soon = _certificate(other, 5)["tls_cert"]
    notes = _texts(_settings(data_dir, tls_client_ca=soon), Verdict.NOTE)
    assert any(text.startswith("tls clients") and text.endswith("renew it") for text in notes)
