"""Lists of people and devices, taken over whole or not at all."""

import asyncio
import base64
import io
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import pytest
import pytest_asyncio

from anxin.id_card import check_character
from anxin.seal import key_line
from tests.integration.api_world import Api, running, settle

KEYS = "\n".join(key_line(kind, datetime.now(UTC)) for kind in ("master", "index"))
PHONE = "13800138000"


@pytest_asyncio.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with running(settle(dsn), environ={"data_keys": KEYS}) as serving:
        yield serving


def card(serial: int, born: str = "19400123") -> str:
    first = f"500118{born}{serial:03d}"
    return first + check_character(first)


def csv(*rows: str, encoding: str = "utf-8") -> bytes:
    return "\r\n".join(rows).encode(encoding)


def workbook(rows: list[list[str | float]]) -> bytes:
    """Write the smallest workbook that there is: one sheet, texts in place, numbers as numbers."""
    lines = []
    for number, cells in enumerate(rows, 1):
        told = []
        for at, cell in enumerate(cells):
            name = f"{chr(65 + at)}{number}"
            if isinstance(cell, str):
                told.append(f'<c r="{name}" t="inlineStr"><is><t>{cell}</t></is></c>')
            else:
                told.append(f'<c r="{name}"><v>{cell!r}</v></c>')
        lines.append(f'<row r="{number}">{"".join(told)}</row>')
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.'
        'relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-'
        'officedocument.spreadsheetml.sheet.main+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets>'
        '<sheet name="名单" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{relations}/worksheet" Target="worksheets/sheet1.xml"/>'
        "</Relationships>",
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>'
        f"{''.join(lines)}</sheetData></worksheet>",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in parts.items():
            file.writestr(name, text)
    return packed.getvalue()


async def send(
    api: Api, content: bytes, kind: str = "residents", who: str = "supervisor", **more: Any
) -> Any:
    body = {"kind": kind, "name": "名单.csv", "content": base64.b64encode(content).decode(), **more}
    return await api[who].post("/imports", json=body)


async def accepted(api: Api, content: bytes, kind: str = "residents", **more: Any) -> Any:
    answer = await send(api, content, kind, **more)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def rows(api: Api, id_: str, **query: str) -> list[Any]:
    answer = await api["supervisor"].get(f"/imports/{id_}/rows", params=query)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["items"]
    return found


async def apply(api: Api, id_: str) -> Any:
    return await api["supervisor"].post(f"/imports/{id_}/apply", timeout=100)


def count(api: Api, table: str) -> int:
    return int(api.world.one(f"SELECT count(*) FROM {table}"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
async def test_a_list_as_any_spreadsheet_saves_it_becomes_residents(
    api: Api, encoding: str
) -> None:
    number = card(11)
    made = await accepted(api, csv(
        "康宁养老院入住名单", "",
        "姓名*,性别,身份证号（必填）,联系电话,所在地点,床号,失能等级,紧急联系人,与老人关系,紧急联系人电话,血型",
        f"王秀英,女,,{PHONE},A,1床,中度失能,李明,儿子,139 0013 9000,A",
        f"李建国,,{number},,A,2床,3级,,,,B",
        encoding=encoding))  # fmt: skip
    assert made["counts"] == {"create": 2}
    assert {one["text"]: one["field"] for one in made["columns"]}["血型"] is None
    assert count(api, "residents") == 2, "looking stores nothing"

    done = await apply(api, made["id"])
    assert done.status_code == 200, done.text
    stored = api.world.ask(
        "SELECT r.name, r.sex, r.born::text, r.care_level, p.name AS bed, p.kind, q.name AS home"
        " FROM residents r JOIN places p ON p.id = r.place_id JOIN places q ON q.id = p.parent_id"
        " WHERE p.name LIKE '%%床' ORDER BY p.name"
    )
    assert [tuple(row.values()) for row in stored] == [
        ("王秀英", "female", None, 2, "1床", "bed", "A"),
        ("李建国", "male", "1940-01-23", 3, "2床", "bed", "A"),
    ]
    # Numbers are sealed: found by their index, masked, nowhere in the clear.
    found = (await api["supervisor"].post("/people/search", json={"id_card": number})).json()
    assert [one["name"] for one in found["items"]] == ["李建国"]
    kin = (await api["supervisor"].post("/people/search", json={"phone": "13900139000"})).json()
    assert [(one["name"], one["whose"]) for one in kin["items"]] == [("王秀英", "relative")]
    everything = str(api.world.ask("SELECT * FROM identities")) + str(
        api.world.ask("SELECT * FROM relatives")
    )
    assert number not in everything
    assert "李明" not in everything
    assert api.world.one("SELECT content FROM imports") is None


async def test_a_workbook_is_read_and_a_number_that_it_rounded_is_told(api: Api) -> None:
    made = await accepted(api, workbook([
        ["Name", "ID card", "Born", "Place"],
        ["Wang", card(12), "1940-01-23", "A bed"],
        ["Li", 500118194001230011.0, "1940-01-23", "A"],
    ]))  # fmt: skip
    assert made["counts"] == {"create": 1, "fault": 1}
    (bad,) = await rows(api, made["id"], action="fault")
    assert (bad["number"], bad["faults"][0]["field"]) == (3, "id_card")
    assert "文本" in bad["faults"][0]["zh"]
    assert "as text" in bad["faults"][0]["en"]


async def test_bad_rows_are_told_in_words_mended_and_taken_over(api: Api) -> None:
    good = card(21)
    made = await accepted(api, csv(
        "姓名,性别,出生日期,身份证号,电话,所在地点,失能等级",
        f"好人,女,,{card(22)},,A,1",
        f"错号,男,,{good[:-1]}{'0' if good[-1] != '0' else '1'},,A,1",
        "错日,男,1940年2月31日,,,A,1",
        "=cmd|' /C calc'!A0,男,,,,A,1",
        "错地,男,,,,没有的地方,1",
        "外人,男,,,,B,1",
        "错话,男,,,12345,A,九级",
        f"重复,女,,{card(22)},,A,1",
        ",男,1950-01-01,,,A,1",
        f"矛盾,男,,{card(24)},,A,1"))  # fmt: skip
    assert made["counts"] == {"create": 1, "fault": 9}
    bad = {one["number"]: one for one in await rows(api, made["id"], action="fault")}
    told = {
        number: [(fault["field"], fault["zh"]) for fault in one["faults"]]
        for number, one in bad.items()
    }
    assert {number: [field for field, _ in faults] for number, faults in told.items()} == {
        3: ["id_card"], 4: ["born"], 5: ["name"], 6: ["place"], 7: ["place"],
        8: ["phone", "care_level"], 9: [""], 10: ["name"], 11: ["sex"],
    }  # fmt: skip
    assert "校验码" in told[3][0][1]
    assert "公式" in told[5][0][1]
    assert "第 2 行" in told[9][0][1]
    assert all(
        fault["en"] and fault["en"].isascii() for one in bad.values() for fault in one["faults"]
    )

    refused = await apply(api, made["id"])
    assert refused.status_code == 409, refused.text
    assert count(api, "residents") == 2, "not even the good row is stored"

    mended = await api["supervisor"].post(
        f"/imports/{made['id']}/mend",
        json={
            "cells": {"3": {"id_card": good}, "4": {"born": "1940-02-28"}, "5": {"name": "正名"},
                      "8": {"phone": PHONE, "care_level": "4"}, "10": {"name": "有名"},
                      "11": {"sex": ""}},
            "left_out": [6, 7, 9],
        },
    )  # fmt: skip
    assert mended.json()["counts"] == {"create": 7, "left_out": 3}, mended.text
    done = await apply(api, made["id"])
    assert done.status_code == 200, done.text
    assert count(api, "residents") == 2 + 7


async def test_the_same_list_again_changes_nothing_and_a_corrected_one_only_what_differs(
    api: Api,
) -> None:
    lines = [f"某{n},女,{card(100 + 2 * n)},1380013{n:04d},A,{n}床" for n in range(5)]
    heading = "姓名,性别,身份证号,电话,所在地点,床位"
    first = await accepted(api, csv(heading, *lines))
    assert (await apply(api, first["id"])).status_code == 200
    again = await apply(api, first["id"])
    assert again.status_code == 200, "a second time it stays as it is"
    assert count(api, "residents") == 7

    same = await accepted(api, csv(heading, *lines))
    assert same["counts"] == {"same": 5}
    corrected = f"某0改,女,{card(100)},13900000000,A,0床,糖尿病"
    changed = await accepted(api, csv(f"{heading},备注", corrected, *lines[1:3]))
    assert changed["counts"] == {"change": 1, "same": 2}
    (one,) = await rows(api, changed["id"], action="change")
    assert sorted(one["changes"]) == ["name", "note", "phone"]
    assert (await apply(api, changed["id"])).status_code == 200
    assert count(api, "residents") == 7
    assert api.world.ask("SELECT name FROM residents WHERE note = '糖尿病'") == [{"name": "某0改"}]
    # Without a card: the same name and birthday at the same place is the same person.
    by_name = await accepted(api, csv("姓名,所在地点", "某1,A/1床", "某9,A"))
    assert by_name["counts"] == {"same": 1, "create": 1}


async def test_what_changed_meanwhile_is_looked_at_again_before_anything_is_stored(
    api: Api,
) -> None:
    body = csv("姓名,身份证号,所在地点", f"甲,{card(31)},A", f"乙,{card(33)},A")
    first, second = await accepted(api, body), await accepted(api, body)
    assert (await apply(api, first["id"])).status_code == 200
    late = await apply(api, second["id"])
    assert late.status_code == 409, late.text
    assert count(api, "residents") == 4
    now = (await api["supervisor"].get(f"/imports/{second['id']}")).json()
    assert now["counts"] == {"same": 2}, "what is shown next is how it stands now"


async def test_a_failure_in_the_middle_leaves_nothing_behind(api: Api) -> None:
    world = api.world
    # A device of a foreign house has the id of the last row: only the database can know.
    world.device("taken-1", "B")
    before = count(api, "devices")
    lines = [f"mat-{n},床垫传感器,A" for n in range(1500)]
    made = await accepted(
        api, csv("设备编号,设备类型,所在地点", *lines, "taken-1,手环,A"), kind="devices"
    )
    assert made["counts"] == {"create": 1501}
    answer = await apply(api, made["id"])
    assert answer.status_code == 409, answer.text
    assert "1502" in answer.json()["detail"]
    assert count(api, "devices") == before
    assert (await api["supervisor"].get(f"/imports/{made['id']}")).json()["applied_at"] is None


async def test_devices_come_with_secrets_shown_once_and_go_to_who_is_named(api: Api) -> None:
    made = await accepted(api, csv(
        "Device,Kind,Name,Place,Resident",
        "mat-7,bed_sensor,Mat 7,A,anna", "ring-7,手环,,A,", "x y,bed_sensor,,A,", "b-1,toaster,,A,",
        "b-2,cuff,,A,bela"), kind="devices")  # fmt: skip
    assert made["counts"] == {"create": 2, "fault": 3}
    fields = [one["faults"][0]["field"] for one in await rows(api, made["id"], action="fault")]
    assert fields == ["id", "kind", "resident"], "somebody of another house is not found"
    mended = await api["supervisor"].post(
        f"/imports/{made['id']}/mend", json={"left_out": [4, 5, 6]}
    )
    assert mended.status_code == 200, mended.text
    done = (await apply(api, made["id"])).json()
    assert [one["id"] for one in done["secrets"]] == ["mat-7", "ring-7"]
    assert all(len(one["secret"]) > 40 for one in done["secrets"])
    assert (await apply(api, made["id"])).json()["secrets"] == []
    device = (await api["supervisor"].get("/devices/mat-7")).json()
    assert device["resident_id"] == api.world.ids["anna"]
    again = await accepted(
        api, csv("设备编号,设备类型,设备名称", "mat-7,床垫,新名"), kind="devices"
    )
    assert again["counts"] == {"change": 1}
    assert (await apply(api, again["id"])).status_code == 200
    device = (await api["supervisor"].get("/devices/mat-7")).json()
    assert (device["name"], device["resident_id"]) == ("新名", api.world.ids["anna"])


async def test_nobody_else_sees_a_list_and_a_foreign_place_is_refused(api: Api) -> None:
    made = await accepted(api, csv("姓名,地点", "甲,A"))
    for path in (f"/imports/{made['id']}", f"/imports/{made['id']}/rows"):
        assert (await api["admin"].get(path)).status_code == 404
    assert (await api["admin"].post(f"/imports/{made['id']}/apply")).status_code == 404
    foreign = await send(api, csv("姓名", "甲"), place_id=api.world.ids["B"])
    assert foreign.status_code == 404
    for who in ("nurse", "integrator", "family"):
        assert (await send(api, csv("姓名", "甲"), who=who)).status_code == 403, who


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "没有内容"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "表格"),
        (b"PK\x03\x04 not a workbook", "损坏"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "xlsx"),
        ("品名,数量\n苹果,3".encode(), "标题"),
        ("姓名,地点\n".encode(), "没有数据"),
        (("姓名\n" + "王\n" * 20_001).encode(), "20000"),
    ],
)
async def test_what_is_no_list_is_refused_in_words(api: Api, content: bytes, says: str) -> None:
    answer = await send(api, content)
    assert answer.status_code == 422, answer.text
    assert says in answer.json()["detail"]


@pytest.mark.parametrize("content", ["名单", "a", "====", "not base64!"])
async def test_what_is_no_base64_is_refused_in_words(api: Api, content: str) -> None:
    body = {"kind": "residents", "name": "名单.csv", "content": content}
    answer = await api["supervisor"].post("/imports", json=body)
    assert answer.status_code == 422
    assert "base64" in answer.json()["detail"]


async def test_a_file_that_is_too_large_is_refused_in_words(api: Api) -> None:
    answer = await send(api, b"x" * (8 * 1024 * 1024 + 1))
    assert answer.status_code == 422, answer.text
    assert "8 MB" in answer.json()["detail"]


async def test_ten_thousand_people_are_taken_over_at_once_and_tell_how_far_they_are(
    api: Api,
) -> None:
    people = 10_000
    lines = [
        f"老人{n},,{card(n % 1000, f'19{30 + n // 1000:02d}0123')},"
        f"138{n:08d},A,{n // 4}-{n % 4}床,{n % 5},家属{n},子女,139{n:08d}"
        for n in range(people)
    ]
    heading = "姓名,,身份证号,电话,所在地点,床位,失能等级,联系人,与老人关系,联系人电话"
    began = perf_counter()
    made = await accepted(api, csv(heading, *lines))
    looked_s = perf_counter() - began
    assert made["counts"] == {"create": people}
    task = asyncio.create_task(apply(api, made["id"]))
    seen: set[int] = set()
    while not task.done():
        seen.add((await api["supervisor"].get(f"/imports/{made['id']}")).json()["done"])
        # Between the looks of a page; nothing is waited for here.
        await asyncio.wait([task], timeout=0.1)
    done = await task
    stored_s = perf_counter() - began - looked_s
    print(f"{people} people: looked through in {looked_s:.1f} s, stored in {stored_s:.1f} s")
    assert done.status_code == 200, done.text
    assert len(seen - {0, people}) >= 3, "it told how far it was"
    assert count(api, "residents") == people + 2
    assert count(api, "identities") == people
    assert count(api, "relatives") == people
    found = (await api["supervisor"].post("/people/search", json={"phone": "13800009999"})).json()
    assert [one["name"] for one in found["items"]] == ["老人9999"]


async def test_an_export_is_harmless_and_comes_back_as_no_change(api: Api) -> None:
    world = api.world
    world.ask("UPDATE residents SET note = '=1+1' WHERE id = %s", int(world.ids["anna"]))
    answer = await api["supervisor"].get("/exports/residents")
    assert answer.status_code == 200
    assert answer.content.startswith(b"\xef\xbb\xbf")
    assert "'=1+1" in answer.text
    assert "bela" not in answer.text, "who is of another house is not in it"
    world.ask("UPDATE residents SET note = '' WHERE id = %s", int(world.ids["anna"]))
    clean = await api["supervisor"].get("/exports/residents", params={"lang": "en"})
    back = await accepted(api, clean.content)
    assert back["counts"] == {"same": 1}, (clean.text, await rows(api, back["id"]))
    for kind in ("residents", "devices"):
        for lang in ("zh", "en"):
            path = f"/exports/{kind}/template"
            template = await api["supervisor"].get(path, params={"lang": lang})
            seen = await accepted(api, template.content, kind=kind)
            assert all(one["field"] for one in seen["columns"]), (kind, lang)
