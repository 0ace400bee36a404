"""TLS with real handshakes: old versions and weak ciphers, client certificates, a renewed one."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from anxin.config import Address, Settings
from anxin.errors import SettingError
from ingest.listener import Listener
from ingest.service import IngestService
from ingest.tls import Credentials, server_context
from tests import mqtt_wire as wire
from tests.factories import Ward
from tests.integration.recording_gate import RawClient, listening
from tests.mqtt_wire import V3, V5
from tests.waiting import eventually

LET_IN, WRONG = 0, 0x86


def openssl(*words: str | Path) -> None:
    """Run openssl; fail when it does."""
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


class Authority:
    """A certificate authority in a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        """Make its own certificate."""
        self.directory, self.name = directory, name
        self.certificate, self.key = directory / f"{name}.crt", directory / f"{name}.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-days", "9", "-subj", f"/CN={name}", "-keyout", self.key,
                "-out", self.certificate)  # fmt: skip

    def issue(self, name: str, *, names: str = "") -> tuple[Path, Path]:
        """Issue a certificate for a common name and, if given, alternative names."""
        base = self.directory / f"{self.name}-{len(list(self.directory.iterdir()))}"
        key, request, made = (base.with_suffix(end) for end in (".key", ".csr", ".crt"))
        extensions = base.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={names}\n" if names else "")
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)  # fmt: skip
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key,
                "-CAcreateserial", "-days", "5", "-extfile", extensions, "-out", made)  # fmt: skip
        return made, key

    def take_back(self, *certificates: Path, days: int = 9) -> bytes:
        """Return a list of the certificates that were taken back, good for so many days."""
        settings = self.directory / f"{self.name}.cnf"
        index, number = self.directory / f"{self.name}.index", self.directory / f"{self.name}.num"
        index.touch()
        number.write_text("01\n")
        settings.write_text(
            f"[ca]\ndefault_ca=a\n[a]\ndatabase={index}\ncrlnumber={number}\n"
            f"default_md=sha256\ndefault_crl_days={max(days, 1)}\nunique_subject=no\n"
        )
        common = ("-config", settings, "-keyfile", self.key, "-cert", self.certificate)
        for certificate in certificates:
            openssl("ca", *common, "-revoke", certificate)
        made = self.directory / f"{self.name}.crl"
        past = ("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z")
        openssl("ca", *common, "-gencrl", "-out", made, *(past if days < 0 else ()))
        return made.read_bytes()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("foreign"), "foreign")


@pytest.fixture(scope="module")
def settings(ours: Authority) -> Settings:
    cert, key = ours.issue("localhost", names="DNS:localhost,IP:127.0.0.1")
    return Settings(tls_cert=str(cert), tls_key=str(key), spool_mebibytes=0)


@pytest.fixture
def ward(dsn: str) -> Iterator[Ward]:
    made = Ward(dsn)
    yield made
    made.close()


@contextlib.asynccontextmanager
async def serving(
    dsn: str, settings: Settings, credentials: Credentials | None = None
) -> AsyncIterator[Listener]:
    """Run the real front door with TLS."""
    settings = msgspec.structs.replace(settings, database=dsn)
    credentials = credentials or Credentials(settings)
    async with (
        IngestService(settings) as service,
        Listener(
            service,
            Address("127.0.0.1", 0),
            ssl_context=credentials.context,
            revoked=credentials.revoked,
            stop_within_s=2,
        ) as door,
    ):
        yield door


async def log_in(
    port: int,
    authority: Authority,
    user: str | None,
    secret: str | None,
    certificate: tuple[Path, Path] | None = None,
    version: int = V5,
) -> int | None:
    """Connect over TLS; return the CONNACK's code, or None when not even TLS was accepted."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if certificate is not None:
        context.load_cert_chain(*certificate)
    try:
        client = RawClient(*await asyncio.open_connection("127.0.0.1", port, ssl=context))
        client.send(wire.connect(version, user, secret.encode() if secret else None))
        packet = await client.packet()
    except (ssl.SSLError, ConnectionError):
        return None
    client.abort()
    return packet[3] if packet else None


# versions and ciphers


def shake_hands(port: int, version: ssl.TLSVersion, ciphers: str) -> str:
    """Offer exactly this; return what was agreed on, or how it was refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version

    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        try:
            with context.wrap_socket(plain) as wrapped:
                agreed = wrapped.cipher()
                return agreed[0] if agreed else ""
        except ssl.SSLError as error:
            return f"refused: {error.reason}"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("version", "ciphers", "agreed"),
    [
        (ssl.TLSVersion.TLSv1, "ALL", False),
        (ssl.TLSVersion.TLSv1_1, "ALL", False),
        (ssl.TLSVersion.TLSv1_2, "AES128-SHA:AES256-SHA", False),
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256:AES256-GCM-SHA384", False),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384", False),
        (ssl.TLSVersion.TLSv1_2, "DHE-RSA-AES128-GCM-SHA256", False),
        (ssl.TLSVersion.TLSv1_2, "aNULL:eNULL", False),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-CHACHA20-POLY1305", True),
        (ssl.TLSVersion.TLSv1_3, "ALL", True),
    ],
)
async def test_only_new_versions_with_strong_ciphers_are_agreed_on(
    settings: Settings, version: ssl.TLSVersion, ciphers: str, *, agreed: bool
) -> None:
    async with listening(ssl_context=server_context(settings)) as (_, door):
        said = await asyncio.to_thread(shake_hands, door.port, version, ciphers)
    assert (not said.startswith("refused")) is agreed, said


# client certificates


async def test_a_certificate_lets_in_the_device_that_it_names_and_no_other(
    dsn: str, ward: Ward, ours: Authority, foreign: Authority, settings: Settings
) -> None:
    secret = ward.device("mat")
    other = ward.device("other")
    mat = ours.issue("mat")
    alternative = ours.issue("Acme device 7", names="DNS:mat")
    two = ours.issue("mat", names="DNS:other")
    stranger, forged = ours.issue("A person"), foreign.issue("mat")
    options = msgspec.structs.replace(settings, tls_client_ca=str(ours.certificate))
    async with serving(dsn, options) as door:
        cases: list[tuple[str | None, str | None, tuple[Path, Path] | None, int | None]] = [
            ("mat", None, mat, LET_IN),
            (None, None, mat, LET_IN),
            ("mat", None, alternative, LET_IN),
            ("mat", secret, mat, LET_IN),
            ("mat", secret, None, LET_IN),
            ("mat", secret, stranger, LET_IN),
            ("other", None, two, LET_IN),
            (None, None, two, WRONG),
            ("mat", "wrong", mat, WRONG),
            ("other", None, mat, WRONG),
            ("other", other, mat, WRONG),
            ("nobody", None, mat, WRONG),
            ("mat", None, stranger, WRONG),
            ("mat", None, None, WRONG),
            ("mat", None, forged, None),
            ("mat", secret, forged, None),
        ]
        for user, given, certificate, expected in cases:
            found = await log_in(door.port, ours, user, given, certificate)
            assert found == expected, (user, certificate)
        assert await log_in(door.port, ours, "mat", None, mat, V3) == 0
        await eventually(lambda: ward.value("SELECT max(tls) FROM device_states") == "TLSv1.3")
        until = "SELECT certificate_until > now() + interval '4 days' FROM device_states"
        await eventually(lambda: ward.value(until + " WHERE certificate_until IS NOT NULL"))


async def test_a_required_certificate_is_asked_of_everybody(
    dsn: str, ward: Ward, ours: Authority, settings: Settings
) -> None:
    secret = ward.device("mat")
    options = msgspec.structs.replace(
        settings, tls_client_ca=str(ours.certificate), tls_client_required=True
    )
    async with serving(dsn, options) as door:
        assert await log_in(door.port, ours, "mat", secret) is None
        assert await log_in(door.port, ours, "mat", secret, ours.issue("mat")) == LET_IN
    with pytest.raises(SettingError):
        server_context(msgspec.structs.replace(settings, tls_client_required=True))


async def test_the_certificate_of_a_revoked_device_opens_no_more_also_once_it_is_enrolled_anew(
    dsn: str, ward: Ward, ours: Authority, settings: Settings
) -> None:
    ward.device("mat")
    options = msgspec.structs.replace(settings, tls_client_ca=str(ours.certificate))
    before = ours.issue("mat")
    async with serving(dsn, options) as door:
        assert await log_in(door.port, ours, "mat", None, before) == LET_IN
        # A certificate is good from a whole second on: the next one must not be of the same.
        await asyncio.sleep(1.1)
        ward.rows("UPDATE devices SET revoked_at = now() RETURNING key")
        registry = door.gate.registry  # type: ignore[attr-defined]  # of the real service
        await eventually(lambda: registry.devices["mat"].revoked)
        assert await log_in(door.port, ours, "mat", None, before) == WRONG
        ward.rows("UPDATE devices SET revoked_at = NULL RETURNING key")
        await eventually(lambda: not registry.devices["mat"].revoked)
        assert await log_in(door.port, ours, "mat", None, before) == WRONG
        await asyncio.sleep(1.1)
        assert await log_in(door.port, ours, "mat", None, ours.issue("mat")) == LET_IN


# renewal


async def test_a_renewed_certificate_is_taken_up_while_connections_go_on(
    dsn: str, ward: Ward, ours: Authority, foreign: Authority, tmp_path: Path, settings: Settings
) -> None:
    secret = ward.device("mat")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def put(made: tuple[Path, Path]) -> None:
        for source, target in zip(made, (cert, key), strict=True):
            target.write_bytes(source.read_bytes())

    put(ours.issue("localhost", names="IP:127.0.0.1"))
    options = msgspec.structs.replace(settings, tls_cert=str(cert), tls_key=str(key))
    credentials = Credentials(options)
    async with serving(dsn, options, credentials) as door:
        keeper = asyncio.create_task(credentials.keep(0.05))
        trust = ssl.create_default_context(cafile=str(ours.certificate))
        first = RawClient(*await asyncio.open_connection("127.0.0.1", door.port, ssl=trust))
        first.send(wire.connect(V5, "mat", secret.encode()))
        assert (await first.packet())[3] == LET_IN
        # Half of a replacement: what was there goes on.
        cert.write_bytes(foreign.certificate.read_bytes())
        await asyncio.sleep(0.2)
        assert await log_in(door.port, ours, "mat", secret) == LET_IN
        put(foreign.issue("localhost", names="IP:127.0.0.1"))
        async with asyncio.timeout(10):
            while await log_in(door.port, foreign, "mat", secret) is None:
                pass
        assert await log_in(door.port, ours, "mat", secret) is None
        keeper.cancel()
        first.abort()


# taken back


async def test_a_certificate_that_was_taken_back_opens_nothing_and_its_neighbours_feel_nothing(
    dsn: str, ward: Ward, tmp_path: Path, settings: Settings, ours: Authority
) -> None:
    clients = Authority(tmp_path, "clients")
    secret, _ = ward.device("mat"), ward.device("other")
    mat, other = clients.issue("mat"), clients.issue("other")
    file = tmp_path / "taken-back.crl"
    file.write_bytes(clients.take_back())
    options = msgspec.structs.replace(
        settings, tls_client_ca=str(clients.certificate), tls_client_crl=str(file)
    )
    credentials = Credentials(options)
    async with serving(dsn, options, credentials) as door:
        keeper = asyncio.create_task(credentials.keep(60))
        assert await log_in(door.port, ours, "mat", None, mat) == LET_IN
        file.write_bytes(clients.take_back(mat[0]))
        credentials.look()
        await eventually(lambda: credentials.revoked(der(mat[0])))
        assert await log_in(door.port, ours, "mat", None, mat) is None
        assert await log_in(door.port, ours, "mat", secret, mat) is None
        assert door.refused["certificate_revoked"] == 2
        assert await log_in(door.port, ours, "mat", secret) == LET_IN
        assert await log_in(door.port, ours, "other", None, other) == LET_IN
        # A file that cannot be used takes nothing away, and one that is overdue shuts nobody out.
        for content in (b"no list", clients.take_back(days=-1)):
            file.write_bytes(content)
            credentials.look()
            await eventually(lambda: not credentials.asked)
            assert await log_in(door.port, ours, "mat", None, mat) is None
            assert await log_in(door.port, ours, "other", None, other) == LET_IN
        keeper.cancel()


def der(certificate: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


def test_a_list_that_nobody_vouches_for_is_refused(
    tmp_path: Path, settings: Settings, foreign: Authority
) -> None:
    clients = Authority(tmp_path, "clients")
    file = tmp_path / "list.crl"
    file.write_bytes(foreign.take_back())
    options = msgspec.structs.replace(settings, tls_client_crl=str(file))
    with pytest.raises(SettingError, match="needs ANXIN_TLS_CLIENT_CA"):
        Credentials(options)
    options = msgspec.structs.replace(options, tls_client_ca=str(clients.certificate))
    with pytest.raises(SettingError, match="not signed by an authority"):
        Credentials(options)
    file.write_text("nothing")
    with pytest.raises(SettingError, match="no revocation list"):
        Credentials(options)


async def test_a_client_authority_is_exchanged_without_a_restart(
    dsn: str, ward: Ward, tmp_path: Path, settings: Settings, ours: Authority
) -> None:
    ward.device("mat")
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    before, after = old.issue("mat"), new.issue("mat")
    file = tmp_path / "clients.crt"
    file.write_bytes(old.certificate.read_bytes())
    options = msgspec.structs.replace(settings, tls_client_ca=str(file))
    credentials = Credentials(options)
    async with serving(dsn, options, credentials) as door:
        keeper = asyncio.create_task(credentials.keep(0.05))
        assert await log_in(door.port, ours, "mat", None, before) == LET_IN
        assert await log_in(door.port, ours, "mat", None, after) is None
        file.write_bytes(new.certificate.read_bytes())
        async with asyncio.timeout(10):
            while await log_in(door.port, ours, "mat", None, after) is None:
                pass
        assert await log_in(door.port, ours, "mat", None, before) is None
        keeper.cancel()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_that_was_taken_back_resumes_no_session(
    tmp_path: Path, settings: Settings, ours: Authority, version: ssl.TLSVersion
) -> None:
    clients = Authority(tmp_path, "clients")
    mat = clients.issue("mat")
    file = tmp_path / "taken-back.crl"
    file.write_bytes(clients.take_back())
    options = msgspec.structs.replace(
        settings, tls_client_ca=str(clients.certificate), tls_client_crl=str(file)
    )
    credentials = Credentials(options)
    context = ssl.create_default_context(cafile=str(ours.certificate))
    context.load_cert_chain(*mat)
    context.minimum_version = context.maximum_version = version

    def answer(
        port: int, session: ssl.SSLSession | None
    ) -> tuple[bytes, ssl.SSLSession | None, bool | None]:
        """Connect once, in a session if given; return what was answered, and the session."""
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as wrapped,
        ):
            try:
                wrapped.sendall(wire.connect(V5, "mat", b"guess"))
                return wrapped.recv(100), wrapped.session, wrapped.session_reused
            except OSError:
                return b"", None, wrapped.session_reused

    async with listening(ssl_context=credentials.context, revoked=credentials.revoked) as (_, door):
        said, session, _ = await asyncio.to_thread(answer, door.port, None)
        assert said
        said, _, reused = await asyncio.to_thread(answer, door.port, session)
        # TLS 1.2 resumes by its number, which Python cannot switch off; 1.3 does not.
        assert (bool(said), reused) == (True, version is ssl.TLSVersion.TLSv1_2)
        file.write_bytes(clients.take_back(mat[0]))
        keeper = asyncio.create_task(credentials.keep(60))
        credentials.look()
        await eventually(lambda: credentials.revoked(der(mat[0])))
        said, _, reused = await asyncio.to_thread(answer, door.port, session)
        assert (said, reused) == (b"", version is ssl.TLSVersion.TLSv1_2)
        keeper.cancel()
