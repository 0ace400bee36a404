"""The file of a backup: round trips, and that no change of it goes unnoticed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anxin import archive
from anxin.archive import CHUNK_BYTES, Damaged, Manifest, WrongPassphrase
from anxin.errors import AnxinError

AT = datetime(2026, 11, 23, 23, 45, tzinfo=UTC)
PASSPHRASE = "not a secret, a test's"


@pytest.fixture(autouse=True)
def _cheap_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_SCRYPT_LOG2_N", 10)


def write(file: Path, content: list[bytes], passphrase: str = "") -> None:
    with archive.create(file, AT, passphrase) as writer:
        writer.add("database.dump", content)
        writer.finish(
            Manifest(
                archive.FORMAT, AT, "0.1.0", "18.6", ("0001_schema",), (), (), {}, writer.members
            )
        )


def content_of(file: Path, passphrase: str = "") -> bytes:
    with archive.read(file, passphrase) as backup:
        return b"".join(backup.parts("database.dump"))


@pytest.fixture(params=["", PASSPHRASE], ids=["plain", "encrypted"])
def passphrase(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@given(
    sizes=st.lists(st.integers(0, 3 * CHUNK_BYTES), max_size=4),
    passphrase=st.sampled_from(["", PASSPHRASE]),
)
@settings(max_examples=40, deadline=None)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], passphrase: str
) -> None:
    archive._SCRYPT_LOG2_N = 10  # type: ignore[misc]
    parts = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    file = tmp_path_factory.mktemp("archive") / "one.backup"
    write(file, parts, passphrase)
    assert content_of(file, passphrase) == b"".join(parts)


def test_any_changed_bit_is_noticed(tmp_path: Path, passphrase: str) -> None:
    file = tmp_path / "one.backup"
    write(file, [b"rows of health data"], passphrase)
    whole = file.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        with pytest.raises(AnxinError):
            content_of(file, passphrase)
    file.write_bytes(whole)
    assert content_of(file, passphrase) == b"rows of health data"


def test_any_missing_or_added_end_is_noticed(tmp_path: Path, passphrase: str) -> None:
    file = tmp_path / "one.backup"
    write(file, [b"rows of health data"], passphrase)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(AnxinError):
            content_of(file, passphrase)
    for more in (b"\0", whole):
        file.write_bytes(whole + more)
        with pytest.raises(AnxinError):
            content_of(file, passphrase)


def chunks_of(whole: bytes) -> Iterator[bytes]:
    step = CHUNK_BYTES + 16
    for begin in range(archive._HEADER.size, len(whole), step):
        yield whole[begin : begin + step]


def test_exchanged_dropped_and_repeated_chunks_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    write(file, [bytes(4 * CHUNK_BYTES)], PASSPHRASE)
    whole = file.read_bytes()
    head, (a, b, c, d, e) = whole[: archive._HEADER.size], chunks_of(whole)
    assert head + a + b + c + d + e == whole
    for order in ((a, c, b, d, e), (a, b, c, e), (a, b, c, d), (a, b, b, c, d, e), (b, c, d, e)):
        file.write_bytes(head + b"".join(order))
        with pytest.raises(AnxinError):
            content_of(file, PASSPHRASE)


def test_nothing_of_the_content_is_readable_in_an_encrypted_file(tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    write(file, [b"canary-of-a-resident"], PASSPHRASE)
    assert b"canary" not in file.read_bytes()
    assert b"manifest" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600


def test_another_passphrase_is_told_from_damage(tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    write(file, [b"x"], PASSPHRASE)
    with pytest.raises(WrongPassphrase):
        content_of(file, PASSPHRASE + "?")
    with pytest.raises(AnxinError, match="--passphrase-file"):
        content_of(file)


def test_who_expects_an_encrypted_file_is_not_given_a_plain_one(tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    write(file, [b"x"])
    with pytest.raises(AnxinError, match="not encrypted"):
        content_of(file, PASSPHRASE)


def test_a_backup_is_never_written_over_another(tmp_path: Path, passphrase: str) -> None:
    file = tmp_path / "one.backup"
    write(file, [b"first"], passphrase)
    with pytest.raises(AnxinError, match="exists already"):
        write(file, [b"second"], passphrase)
    assert content_of(file, passphrase) == b"first"


def test_a_failed_backup_leaves_nothing_behind(tmp_path: Path, passphrase: str) -> None:
    def failing() -> Iterator[bytes]:
        yield b"some"
        raise OSError("disk full")

    with (
        pytest.raises(OSError, match="disk full"),
        archive.create(tmp_path / "one.backup", AT, passphrase) as writer,
    ):
        writer.add("database.dump", failing())
    assert list(tmp_path.iterdir()) == []


def test_a_newer_format_is_refused_with_words(tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    with archive.create(file, AT) as writer:
        writer.finish(Manifest(archive.FORMAT + 1, AT, "9", "30", (), (), (), {}, {}))
    with pytest.raises(AnxinError, match="newer Anxin"), archive.read(file):
        pass


def test_any_other_file_is_refused_with_words(tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    for content in (b"", b"PK", b"x" * 5000, archive._MAGIC, archive._MAGIC + bytes(60)):
        file.write_bytes(content)
        with pytest.raises((Damaged, AnxinError)):
            content_of(file, PASSPHRASE if content.startswith(archive._MAGIC) else "")


@pytest.mark.parametrize("text", ["", "short\n", "\nthe second line is long enough\n"])
def test_a_short_passphrase_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "passphrase"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(AnxinError, match="openssl"):
        archive.read_passphrase(file)


def test_the_passphrase_is_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("correct horse battery\nmore\n", encoding="utf-8")
    assert archive.read_passphrase(file) == "correct horse battery"
