"""Codes that people type, and the label that carries them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anxin import qr
from anxin.enrolment import ALPHABET, label, new_code, read_code

PLACES = st.integers(0, 11)
SYMBOLS = st.sampled_from(ALPHABET)


@given(PLACES, SYMBOLS)
def test_one_wrong_symbol_is_always_noticed(place: int, symbol: str) -> None:
    plain = read_code(new_code())
    assert plain is not None
    typed = plain[:place] + symbol + plain[place + 1 :]
    assert (read_code(typed) == plain) is (typed == plain)


@given(st.integers(0, 10))
def test_two_neighbours_swapped_are_always_noticed(place: int) -> None:
    plain = read_code(new_code())
    assert plain is not None
    typed = plain[:place] + plain[place + 1] + plain[place] + plain[place + 2 :]
    assert (read_code(typed) is None) is (typed != plain)


@given(st.text(max_size=20))
def test_any_text_is_a_code_or_none(text: str) -> None:
    plain = read_code(text)
    assert plain is None or read_code(plain) == plain


def test_codes_are_read_as_people_write_them() -> None:
    code = "0123-4567-89A" + next(last for last in ALPHABET if read_code(f"0123456789A{last}"))
    assert read_code(code.lower().replace("0", "o").replace("1", "I").replace("-", " ")) is not None
    assert read_code(code) == read_code(code.replace("1", "l"))
    assert read_code("") is None
    assert read_code("0" * 13) is None


def test_the_longest_label_fits_and_a_longer_one_says_so() -> None:
    picture = qr.svg(label("https://care.some-long-name-of-a-district.example.cn/api/v1/enrol",
                           "7K3M-9QXD-A2VT"))  # fmt: skip
    assert picture.count("<path") == 2
    with pytest.raises(qr.TooLong, match="213"):
        qr.svg("x" * 214)


# Both as another encoder draws them, module by module.
SMALL = (
    "1fd17f 105e41 17545d 17475d 17535d 104b41 1fd57f 000500 13fb97 01ae88 0aeb0b 1d35b6 065b13 "
    "0016d2 1fd9d4 1052cc 175c3a 1750e8 174737 10415f 1fd6c0"
)
LARGE = "fc3ea322ecaf9532e147b1b0f1f18fb0ef39aa20e370cb6a0722eb74b3f0de81"


def test_codes_are_drawn_as_the_standard_has_them() -> None:
    grid = qr.modules(b"anxin:enrol?14")
    assert " ".join(f"{int(''.join(map(str, row)), 2):06x}" for row in grid) == SMALL
    grid = qr.modules(b"0123456789" * 10 + b"abcdefghijklmnopqrstuv")
    assert len(grid) == 45
    drawn = "".join(str(module) for row in grid for module in row)
    assert hashlib.sha256(drawn.encode()).hexdigest() == LARGE
