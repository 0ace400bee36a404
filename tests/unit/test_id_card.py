"""Identity-card numbers by GB 11643, their masks, and telephone numbers."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anxin.id_card import (
    PROVINCES,
    Fault,
    IdCard,
    check_character,
    masked_id_card,
    masked_phone,
    read_id_card,
)
from anxin.notify.phone import plain_number

TODAY = date(2026, 11, 24)


@pytest.mark.parametrize(
    ("text", "born", "sex"),
    [
        # The two examples that the standard itself works out.
        ("11010519491231002X", date(1949, 12, 31), "female"),
        ("440524188001010014", date(1880, 1, 1), "male"),
        ("110105 19491231 002x", date(1949, 12, 31), "female"),
        ("１１０１０５１９４９１２３１００２Ｘ", date(1949, 12, 31), "female"),
    ],
)
def test_a_number_says_when_its_bearer_was_born_and_of_which_sex(
    text: str, born: date, sex: str
) -> None:
    found = read_id_card(text, date(1990, 1, 1))
    assert isinstance(found, IdCard)
    assert (found.born, found.sex, len(found.number)) == (born, sex, 18)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("110105194912310021", "check character"),
        ("11010519491231002", "18 digits"),
        ("1101051949123100201", "18 digits"),
        ("X1010519491231002X", "18 digits"),
        ("99010519491231002X", "region"),
        ("11000019491231002X", "region"),
        ("11010519490231002X", "does not exist"),
        ("11010520991231002X", "plausible"),
        ("440524188001010014", "plausible"),
        ("", "18 digits"),
    ],
)
def test_a_number_that_cannot_be_one_is_refused_with_the_reason(text: str, word: str) -> None:
    found = read_id_card(text, TODAY)
    assert isinstance(found, Fault)
    assert word in found.en
    assert not text or text not in found.en + found.zh


digits = st.builds(
    "{}{:04d}{}{:03d}".format,
    st.sampled_from(sorted(PROVINCES)),
    st.integers(1, 9999),
    st.dates(date(1900, 1, 1), TODAY).map(lambda day: f"{day:%Y%m%d}"),
    st.integers(0, 999),
)


@given(digits, st.integers(0, 16), st.integers(1, 9))
def test_every_wrong_digit_is_noticed(first: str, place: int, by: int) -> None:
    number = first + check_character(first)
    assert isinstance(read_id_card(number, TODAY), IdCard)
    wrong = number[:place] + str((int(number[place]) + by) % 10) + number[place + 1 :]
    assert isinstance(read_id_card(wrong, TODAY), Fault)


@given(digits, st.integers(0, 15))
def test_two_neighbours_that_changed_places_are_noticed(first: str, place: int) -> None:
    number = first + check_character(first)
    swapped = number[:place] + number[place + 1] + number[place] + number[place + 2 :]
    assert swapped == number or isinstance(read_id_card(swapped, TODAY), Fault)


def test_masks_hide_what_identifies() -> None:
    assert masked_id_card("50011819491231012X") == "500************12X"
    assert masked_phone("+8613812345678") == "138****5678"
    assert masked_phone("+442079460018") == "+44****0018"
    assert masked_phone("12345") == "****"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("13800138000", "+8613800138000"),
        ("138 0013 8000", "+8613800138000"),
        ("１３８００１３８０００", "+8613800138000"),
        ("+86 138-0013-8000", "+8613800138000"),
        ("0086 13800138000", "+8613800138000"),
        ("8613800138000", "+8613800138000"),
        ("023-4986 1234", "+862349861234"),
        ("+44 20 7946 0018", "+442079460018"),
        ("12345", None),
        ("1380013800", None),
        ("", None),
        ("13800138000;13900139000", None),
    ],
)
def test_a_telephone_number_has_one_form(text: str, plain: str | None) -> None:
    assert plain_number(text) == plain
