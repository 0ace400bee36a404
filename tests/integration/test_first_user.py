"""`anxin migrate` makes the first user where services run one by one, and never changes one."""

import argparse

import pytest

from anxin.config import Settings
from anxin.db.users import ensure_user
from anxin.migrate import run


def test_migrating_a_fresh_database_with_a_password_creates_admin_once(
    empty_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(database=empty_dsn, admin_password="first-password")
    assert run(argparse.Namespace(), settings) == 0
    assert "created the user admin" in capsys.readouterr().out
    assert run(argparse.Namespace(), settings) == 0
    assert capsys.readouterr().out == "the schema is up to date\n"
    assert not ensure_user(empty_dsn, "admin", "another", "admin")


def test_migrating_without_a_password_creates_nobody(empty_dsn: str) -> None:
    assert run(argparse.Namespace(), Settings(database=empty_dsn)) == 0
    assert ensure_user(empty_dsn, "admin", "another", "admin")
