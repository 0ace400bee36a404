"""Sealed fields open in their place with their keys, and nowhere else."""

import itertools
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anxin.errors import SettingError
from anxin.seal import DataKeys, KeyUnknown, PersonKey, Place, SealBroken, key_line

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HERE = Place("identities", "phone", "7")


def keys(*lines: str) -> DataKeys:
    return DataKeys.parse("\n".join(lines))


MASTER, INDEX = key_line("master", NOW), key_line("index", NOW)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_opens_in_its_place(text: str) -> None:
    key = PersonKey.new()
    assert key.open(key.seal(text, HERE), HERE) == text


def test_equal_values_are_sealed_differently_each_time() -> None:
    key = PersonKey.new()
    sealed = {key.seal("13800138000", HERE) for _ in range(100)}
    assert len(sealed) == 100
    assert not any(b"138" in one for one in sealed)


@pytest.mark.parametrize(
    "there",
    [
        Place("relatives", "phone", "7"),
        Place("identities", "id_card", "7"),
        Place("identities", "phone", "8"),
        Place("identitiesphone", "", "7"),
    ],
)
def test_a_value_that_was_moved_does_not_open(there: Place) -> None:
    key = PersonKey.new()
    with pytest.raises(SealBroken):
        key.open(key.seal("x", HERE), there)


def test_every_single_bit_that_is_changed_is_noticed() -> None:
    key = PersonKey.new()
    sealed = key.seal("500", HERE)
    for position, bit in itertools.product(range(len(sealed)), range(8)):
        changed = bytearray(sealed)
        changed[position] ^= 1 << bit
        with pytest.raises(SealBroken):
            key.open(bytes(changed), HERE)
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            key.open(sealed[:length], HERE)


def test_another_persons_key_does_not_open_it() -> None:
    key = PersonKey.new()
    sealed = key.seal("x", HERE)
    for other in (PersonKey.new(), PersonKey(key.id, PersonKey.new().key)):
        with pytest.raises(SealBroken):
            other.open(sealed, HERE)


def test_a_wrapped_key_belongs_to_its_person_its_id_and_its_master() -> None:
    held = keys(MASTER, INDEX)
    key = PersonKey.new()
    master, wrapped = held.wrap(key, 7)
    assert held.unwrap(master, key.id, wrapped, 7) == key
    for id_, resident in ((key.id, 8), (uuid4(), 7)):
        with pytest.raises(SealBroken):
            held.unwrap(master, id_, wrapped, resident)
    with pytest.raises(KeyUnknown, match=master):
        keys(key_line("master", NOW, [master]), INDEX).unwrap(master, key.id, wrapped, 7)


def test_the_newest_key_writes_and_the_older_ones_still_open() -> None:
    old = keys(MASTER, INDEX)
    both = keys(
        MASTER, INDEX, key_line("master", NOW, old.masters), key_line("index", NOW, old.indexes)
    )
    key = PersonKey.new()
    before = old.wrap(key, 7)
    after = both.wrap(key, 7)
    assert (before[0], after[0]) == ("20261124", "20261124-2")
    assert both.unwrap(before[0], key.id, before[1], 7) == key
    assert both.unwrap(after[0], key.id, after[1], 7) == key
    assert old.index("phone", "1") in both.candidates("phone", "1")
    assert both.index("phone", "1") in both.candidates("phone", "1")
    assert both.index("phone", "1") != old.index("phone", "1")


def test_an_index_is_the_same_for_the_same_value_and_purpose_only() -> None:
    held = keys(MASTER, INDEX)
    assert held.index("phone", "1") == held.index("phone", "1")
    assert len({held.index(*one) for one in (("phone", "1"), ("phone", "2"), ("card", "1"))}) == 3


def test_keys_do_not_show_themselves() -> None:
    held, person = keys(MASTER, INDEX), PersonKey.new()
    assert MASTER.split()[2] not in repr(held)
    assert repr(person.key) not in repr(person)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("", "at least one", id="empty"),
        pytest.param(MASTER, "at least one", id="no index key"),
        pytest.param(f"{MASTER}\n{MASTER}\n{INDEX}", "twice", id="twice"),
        ("master 1 c2hvcnQ=", "32 bytes"),
        ("master 1 %%%", "32 bytes"),
        ("owner 1 x", "line 1"),
        ("master 1", "line 1"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used_says_why_and_shows_no_key(
    text: str, fault: str
) -> None:
    with pytest.raises(SettingError, match=fault) as error:
        DataKeys.parse(text)
    assert MASTER.split()[2] not in str(error.value)


def test_comments_and_empty_lines_are_allowed() -> None:
    assert keys("# keep this", "", f"{MASTER} # the first", INDEX).newest_master == "20261124"
