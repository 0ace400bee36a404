"""Lists from spreadsheets: what is read, what is recognised, whom a row is about."""

from datetime import date
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anxin.db.devices import DeviceKind
from anxin.id_card import check_character
from anxin.imports import (
    COLUMNS,
    KIND_WORDS,
    Faulty,
    Kind,
    KnownPlace,
    Places,
    Row,
    read_person,
    read_sheet,
    readers,
)
from anxin.matching import Known, KnownPerson, judge
from anxin.tables import Unreadable, read_table

TODAY = date(2026, 11, 24)
CARD = "50011819400123011" + check_character("50011819400123011")
PLACES = [
    KnownPlace(1, None, "district", "区", "/1/"),
    KnownPlace(2, 1, "facility", "甲院", "/1/2/"),
    KnownPlace(3, 2, "room", "201", "/1/2/3/"),
    KnownPlace(4, 1, "facility", "乙院", "/1/4/"),
    KnownPlace(5, 4, "room", "201", "/1/4/5/"),
    KnownPlace(6, 3, "bed", "1床", "/1/2/3/6/"),
]


def person(**changes: Any) -> KnownPerson:
    values: dict[str, Any] = {
        "id": 7, "name": "王秀英", "sex": "female", "born": date(1940, 1, 23), "place_id": 6,
        "care_level": 2, "fall_risk": False, "wander_risk": False, "note": "", "card": None,
        "phone": None, "contacts": [],
    }  # fmt: skip
    return KnownPerson(**values | changes)


def judged(text: str, *people: KnownPerson, scope: str = "/1/", kind: Kind = "residents") -> Any:
    sheet = read_sheet(kind, read_table(text.encode()))
    places = Places(PLACES, scope)
    # An index that is the number itself: what the true one is made of is tried elsewhere.
    index = [lambda number: [number.encode()]] * 3
    judge(sheet, Known(places, None, [*people], [], *index), TODAY)
    return sheet.rows


def faults(text: str, *people: KnownPerson) -> list[str]:
    (row,) = judged(text, *people)
    return [fault.field for fault in row.faults]


@given(st.binary(max_size=400) | st.binary(max_size=60).map(lambda rest: b"PK\x03\x04" + rest))
def test_any_bytes_are_a_table_or_are_refused(content: bytes) -> None:
    try:
        lines = read_table(content)
    except Unreadable:
        return
    assert lines
    assert all(any(line.cells) for line in lines)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_heading_of_either_language_is_recognised(kind: Kind) -> None:
    for words in ("zh", "en"):
        headings = ",".join(getattr(column, words) for column in COLUMNS[kind].values())
        sheet = read_sheet(kind, read_table(f"{headings}\nx\n".encode()))
        assert [one.field for one in sheet.headings] == list(COLUMNS[kind]), words


def test_every_kind_of_device_has_a_word_that_is_read_back() -> None:
    assert set(KIND_WORDS) == set(get_args(DeviceKind))
    read = readers("devices", TODAY)["kind"]
    assert all(read(word) == read(kind) == kind for kind, word in KIND_WORDS.items())


@pytest.mark.parametrize(
    "text", ["1940-01-23", "1940/1/23", "1940.1.23", "1940年1月23日", "19400123", "１９４０-１-23"]
)
def test_days_are_read_as_people_write_them(text: str) -> None:
    assert readers("residents", TODAY)["born"](text) == date(1940, 1, 23)


@pytest.mark.parametrize("text", ["23/01/1940", "1940-02-30", "2040-01-01", "1700-01-01", "x"])
def test_days_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(Faulty):
        readers("residents", TODAY)["born"](text)


@pytest.mark.parametrize("text", ["5.00118E+17", "5E+17"])
def test_a_number_that_a_spreadsheet_has_rounded_is_told_as_such(text: str) -> None:
    with pytest.raises(Faulty, match="as text"):
        readers("residents", TODAY)["id_card"](text)


def test_a_card_fills_in_birthday_and_sex_and_may_not_contradict() -> None:
    row = Row(2, {"name": "x", "id_card": CARD})
    read = readers("residents", TODAY)
    with_card = read_person(row, read, TODAY)
    assert row.faults == []
    assert (with_card["born"], with_card["sex"]) == (date(1940, 1, 23), "male")
    other = Row(3, row.cells | {"sex": "女", "born": "1940-01-24"})
    read_person(other, read, TODAY)
    assert [fault.field for fault in other.faults] == ["born", "sex"]


def test_a_place_is_found_by_its_name_or_by_names_on_the_way_to_it() -> None:
    places = Places(PLACES, "/1/")
    assert places.find("甲院").id == 2
    assert places.find("甲院/201").id == places.find("区＞甲院＞201").id == 3
    for text, says in (("201", "2 places"), ("丙院", "no such place"), ("乙院/1床", "no such")):
        with pytest.raises(Faulty, match=says):
            places.find(text)
    with pytest.raises(Faulty):
        Places(PLACES, "/1/4/").find("甲院")
    assert Places(PLACES, "/1/4/").find("201").id == 5, "what is not ours is not in the way"


def test_whom_a_row_is_about() -> None:
    known = person(card=CARD.encode())
    heading = "编号,姓名,身份证号,出生日期,所在地点"
    same = [
        "7,王秀英,,,", f",王秀英,{CARD},,甲院", ",王秀英,,1940-01-23,甲院/201/1床",
        ",王秀英,,,甲院/201/1床",
    ]  # fmt: skip
    for line in same:
        (row,) = judged(f"{heading}\n{line}\n", known)
        assert row.id == "7", line
    for line in (",王秀英,,1950-01-01,甲院/201/1床", ",王秀英,,,乙院", ",王英,,,甲院/201/1床"):
        (row,) = judged(f"{heading}\n{line}\n", known)
        assert (row.action, row.id) == ("create", None), line
    assert faults(f"{heading}\n8,王秀英,,,\n", known) == ["id"]
    twins = (person(), person(id=8))
    assert faults(f"{heading}\n,王秀英,,,甲院/201/1床\n", *twins) == [""]


def test_a_namesake_elsewhere_is_hinted_at_and_stops_nothing() -> None:
    (row,) = judged("姓名,出生日期,地点\n王秀英,1940-01-23,乙院\n", person())
    assert (row.action, [hint.field for hint in row.hints]) == ("create", ["name"])


def test_an_empty_cell_changes_nothing_and_others_only_what_differs() -> None:
    (row,) = judged("编号,姓名,失能等级,备注,跌倒风险\n7,,重度,,否\n", person())
    assert (row.action, row.changes) == ("change", ["care_level"])


def test_a_bed_that_is_not_there_is_a_plan_and_one_that_is_there_is_taken() -> None:
    rows = judged("姓名,地点,床位\n甲,甲院/201,1床\n乙,甲院/201,2床\n", person(name="丙"))
    assert [row.action for row in rows] == ["create", "create"]


def test_the_same_person_twice_in_a_list_is_told_with_the_row() -> None:
    rows = judged("姓名,地点\n甲,甲院\n乙,甲院\n甲,甲院\n")
    assert [row.action for row in rows] == ["create", "create", "fault"]
    assert "第 2 行" in rows[2].faults[0].zh
