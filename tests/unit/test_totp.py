"""Codes as the RFCs print them, and taken once."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anxin import qr
from anxin.totp import (
    STEP_SECONDS,
    code_of,
    hash_recovery_code,
    matching_step,
    new_recovery_codes,
    new_secret,
    otpauth_uri,
    secret_text,
    step_at,
)

SEED = b"12345678901234567890"
HOTP = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871",
        "520489"]  # fmt: skip
TOTP = {
    59: ("94287082", "46119246", "90693936"),
    1111111109: ("07081804", "68084774", "25091201"),
    1111111111: ("14050471", "67062674", "99943326"),
    1234567890: ("89005924", "91819424", "93441116"),
    2000000000: ("69279037", "90698825", "38618901"),
    20000000000: ("65353130", "77737706", "47863826"),
}
NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def test_counters_give_the_codes_of_rfc_4226() -> None:
    assert [code_of(SEED, counter) for counter in range(10)] == HOTP


@pytest.mark.parametrize(("seconds", "codes"), TOTP.items())
def test_moments_give_the_codes_of_rfc_6238(seconds: int, codes: tuple[str, ...]) -> None:
    step = step_at(datetime.fromtimestamp(seconds, UTC))
    for digest, length, code in zip(("sha1", "sha256", "sha512"), (20, 32, 64), codes, strict=True):
        seed = (SEED * 4)[:length]
        assert code_of(seed, step, digits=8, digest=digest) == code


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_code_is_taken_one_step_before_and_after_its_own(off: int) -> None:
    step = step_at(NOW) + off
    assert matching_step(SEED, code_of(SEED, step), NOW, after=0) == step


@pytest.mark.parametrize("off", [-2, 2])
def test_a_code_of_another_time_is_refused(off: int) -> None:
    assert matching_step(SEED, code_of(SEED, step_at(NOW) + off), NOW, after=0) is None


def test_a_code_is_refused_once_it_or_a_later_one_was_taken() -> None:
    step = step_at(NOW)
    assert matching_step(SEED, code_of(SEED, step), NOW, after=step) is None
    assert matching_step(SEED, code_of(SEED, step - 1), NOW, after=step) is None
    assert matching_step(SEED, code_of(SEED, step + 1), NOW, after=step) == step + 1


@given(st.text(max_size=20))
def test_no_other_text_is_a_code(text: str) -> None:
    codes = {code_of(SEED, step_at(NOW) + off) for off in (-1, 0, 1)}
    assert (matching_step(SEED, text, NOW, after=0) is not None) == (text in codes)


def test_a_secret_is_20_bytes_and_written_as_authenticators_read_it() -> None:
    assert len(new_secret()) == 20
    assert new_secret() != new_secret()
    assert secret_text(SEED) == "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    assert otpauth_uri(SEED, "nurse@a") == (
        "otpauth://totp/Anxin%3Anurse%40a?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Anxin"
    )
    assert STEP_SECONDS == 30


@pytest.mark.parametrize("name", ["x" * 64, "护" * 64])
def test_the_longest_names_fit_into_a_qr_code(name: str) -> None:
    assert qr.svg(otpauth_uri(SEED, name)).startswith("<svg")


def test_recovery_codes_differ_and_are_known_however_they_are_typed() -> None:
    codes = new_recovery_codes()
    assert len(set(codes)) == 10
    assert hash_recovery_code(codes[0]) == hash_recovery_code(f" {codes[0].upper()} ")
    assert hash_recovery_code(codes[0]) == hash_recovery_code(codes[0].replace("-", ""))
    assert hash_recovery_code(codes[0]) != hash_recovery_code(codes[1])
