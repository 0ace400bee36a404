"""The demonstration: the same logins at every start, and a screen that tells where to go."""

from pathlib import Path

import msgspec
import pytest

from anxin.config import Settings
from anxin.demo import DemoFailed, Logins, read_logins, welcome
from anxin.stack import Stack


def test_new_logins_are_all_different(tmp_path: Path) -> None:
    logins = read_logins(tmp_path / "logins.json", "")
    passwords = msgspec.structs.astuple(logins)
    assert len(set(passwords)) == 4
    assert all(len(password) == 12 for password in passwords)


def test_kept_logins_are_the_same_again(tmp_path: Path) -> None:
    file = tmp_path / "logins.json"
    logins = read_logins(file, "")
    file.write_bytes(msgspec.json.encode(logins))
    assert read_logins(file, "") == logins


def test_given_password_of_admin_wins(tmp_path: Path) -> None:
    assert read_logins(tmp_path / "logins.json", "given").admin == "given"


def test_unreadable_logins_are_told_and_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "logins.json"
    file.write_text("{")
    with pytest.raises(DemoFailed, match=r"logins\.json cannot be read .*Restore it or delete it"):
        read_logins(file, "")
    assert file.read_text() == "{"


def test_welcome_tells_addresses_and_logins_in_two_languages() -> None:
    stack = Stack(Settings(http="0.0.0.0:8123", mqtt="0.0.0.0:1923"))
    text = welcome(stack, Logins("pw-a", "pw-s", "pw-n", "pw-f"))
    for part in ("http://127.0.0.1:8123/", "127.0.0.1:1923", "护理站", "nurse", "Ctrl-C"):
        assert part in text
    for user in ("admin", "supervisor", "nurse", "family"):
        assert f"{user} " in text
        assert f"pw-{user[0]} " in text
    assert max(map(len, text.splitlines())) <= 100
