"""Which passwords may be chosen, and that weaker hashes grow stronger."""

import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from anxin.passwords import (
    check_password,
    hash_password,
    one_time_password,
    password_matches,
    weakness,
)


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "ninechars",
        "1234567890",
        "0987654321",
        "19480213001",
        "13800138000",
        "aaaaaaaaaaaa",
        "abababababab",
        "qwertyuiop",
        "Password123!",
        "woaini1314520",
        "anxin-2026-11",
        "ADMIN12345678",
        "the-wang.li-01",
        "il.gnaw-and-more",
        "１２３４５６７８９０",
    ],
)
def test_what_is_tried_first_may_not_be_chosen(password: str) -> None:
    assert weakness(password, "wang.li")


@pytest.mark.parametrize(
    "password",
    [
        "a good password",
        "correct horse",
        "三月的雨落在旧屋顶上",
        "lilac tandem 40",
        "x7Kq-m2Rt-9bZd",
        "8830271946503127",
    ],
)
def test_any_other_may_whatever_it_is_made_of(password: str) -> None:
    assert weakness(password, "wang.li") is None


def test_a_one_time_password_can_be_chosen_by_nobody_and_read_by_everybody() -> None:
    made = {one_time_password() for _ in range(100)}
    assert len(made) == 100
    assert not {letter for one in made for letter in one} & set("0o1ilIO")


def test_a_weaker_hash_of_the_right_password_gives_a_stronger_one() -> None:
    weak = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8192),)).hash("a good password")
    assert check_password("wrong", weak) == (False, None)
    right, stronger = check_password("a good password", weak)
    assert right
    assert stronger is not None
    assert check_password("a good password", stronger) == (True, None)


def test_nobody_has_a_password() -> None:
    assert not password_matches("nobody has this password", None)
    assert password_matches("x", hash_password("x"))
