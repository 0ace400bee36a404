# ruff: noqa: E501  # tables of words
"""Lists of people and devices, as houses keep them: which column is what, what each row says. Pure.

A row that cannot be taken as it is says why, in Chinese and English, so that it can be mended.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Final, Literal

import msgspec

from anxin.id_card import Fault as CardFault
from anxin.id_card import read_id_card
from anxin.notify.phone import plain_number
from anxin.tables import Line, Unreadable

Kind = Literal["residents", "devices"]
Action = Literal["create", "change", "same", "fault", "left_out"]

LONGEST: Final = {"name": 200, "note": 4000, "relation": 50, "contact": 200}
_HEADINGS_WITHIN: Final = 10
"""Rows: a title and a date may stand above the headings."""


class Column(msgspec.Struct, frozen=True):
    """A field, how exports call it, and by which other headings it is known."""

    zh: str
    en: str
    also: tuple[str, ...] = ()


_PLACE: Final = Column(
    "所在地点", "Place", ("地点", "机构", "位置", "所属机构", "安装位置", "房间", "location")
)
COLUMNS: Final[Mapping[Kind, Mapping[str, Column]]] = {
    "residents": {
        "id": Column("编号", "Number", ("老人编号", "resident id", "id")),
        "name": Column("姓名", "Name", ("老人姓名", "full name")),
        "sex": Column("性别", "Sex", ("gender",)),
        "born": Column("出生日期", "Born", ("生日", "出生年月日", "date of birth", "birthday")),
        "id_card": Column("身份证号", "ID card", (
            "身份证", "身份证号码", "公民身份号码", "证件号码", "id card number", "id number")),
        "phone": Column("电话", "Telephone", (
            "联系电话", "手机", "手机号", "手机号码", "本人电话", "phone", "mobile")),
        "place": _PLACE,
        "bed": Column("床位", "Bed", ("床号", "床位号", "bed number")),
        "care_level": Column("失能等级", "Care level", ("护理等级", "能力等级", "评估等级", "level")),
        "fall_risk": Column("跌倒风险", "Fall risk", ("易跌倒",)),
        "wander_risk": Column("走失风险", "Wandering risk", ("易走失",)),
        "contact": Column("联系人", "Contact", ("紧急联系人", "家属姓名", "监护人", "emergency contact")),
        "relation": Column("与老人关系", "Relation", ("关系", "联系人关系")),
        "contact_phone": Column("联系人电话", "Contact telephone", (
            "紧急联系人电话", "家属电话", "监护人电话", "contact phone")),
        "note": Column("备注", "Note", ("说明", "remarks", "notes")),
    },
    "devices": {
        "id": Column("设备编号", "Device", ("设备号", "设备id", "编号", "device id", "id")),
        "kind": Column("设备类型", "Kind", ("类型", "种类", "type")),
        "name": Column("设备名称", "Name", ("名称", "device name")),
        "place": _PLACE,
        "resident": Column("老人姓名", "Resident", ("使用人", "姓名", "老人", "resident name")),
        "resident_card": Column("身份证号", "ID card", (
            "老人身份证号", "身份证", "身份证号码", "id card number")),
        "resident_id": Column("老人编号", "Resident number", ("resident id",)),
    },
}  # fmt: skip
REQUIRED: Final[Mapping[Kind, str]] = {"residents": "name", "devices": "kind"}
"""Without this column a file is no list of the kind."""

_SEXES: Final = {
    "男": "male", "男性": "male", "m": "male", "male": "male",
    "女": "female", "女性": "female", "f": "female", "female": "female",
    "未知": "unknown", "不详": "unknown", "unknown": "unknown",
}  # fmt: skip
_LEVELS: Final = {
    "能力完好": 0, "完好": 0, "自理": 0, "轻度失能": 1, "轻度": 1, "中度失能": 2, "中度": 2,
    "重度失能": 3, "重度": 3, "完全失能": 4, "完全": 4,
    **{f"{n}{unit}": n for n in range(5) for unit in ("", "级", " 级")},
}  # fmt: skip
_FLAGS: Final = {
    **dict.fromkeys(("是", "有", "√", "1", "yes", "y", "true"), True),
    **dict.fromkeys(("否", "无", "没有", "0", "no", "n", "false"), False),
}
KIND_WORDS: Final = {
    "bed_sensor": "床垫传感器", "wearable": "穿戴设备", "call_button": "呼叫按钮", "cuff": "血压计",
    "thermometer": "体温计", "scale": "体重秤", "oximeter": "血氧仪", "radar": "雷达",
    "smoke": "烟雾报警器", "door": "门磁", "gateway": "网关", "other": "其他",
}  # fmt: skip
_KINDS: Final[Mapping[str, str]] = {
    **{kind: kind for kind in KIND_WORDS},
    **{kind.replace("_", " "): kind for kind in KIND_WORDS},
    "床垫": "bed_sensor", "床带": "bed_sensor", "床垫传感器": "bed_sensor", "睡眠监测": "bed_sensor",
    "睡眠带": "bed_sensor", "智能床垫": "bed_sensor", "床位传感器": "bed_sensor",
    "手环": "wearable", "手表": "wearable", "穿戴设备": "wearable", "可穿戴设备": "wearable",
    "呼叫器": "call_button", "呼叫按钮": "call_button", "紧急呼叫": "call_button", "sos": "call_button",
    "血压计": "cuff", "体温计": "thermometer", "体重秤": "scale", "血氧仪": "oximeter",
    "雷达": "radar", "毫米波雷达": "radar", "烟感": "smoke", "烟雾报警器": "smoke", "门磁": "door",
    "网关": "gateway", "其他": "other",
}  # fmt: skip
LEVEL_WORDS: Final = ("能力完好", "轻度失能", "中度失能", "重度失能", "完全失能")

_FORMULA: Final = ("=", "+", "@", "\t", "\r")
_ROUNDED: Final = re.compile(r"[0-9](?:\.[0-9]+)?[eE]\+?[0-9]+")


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with a cell, or with the row where `field` is empty."""

    field: str
    zh: str
    en: str


class Heading(msgspec.Struct, frozen=True):
    """A heading of the file and what was recognised in it; null: this column is not used."""

    text: str
    field: str | None


class Row(msgspec.Struct):
    """One row: what stands in it, and what becomes of it.

    `id`: the resident or device that it is about, if there is one. `changes` names the fields that
    differ from what is stored. `hints` are worth a look and stop nothing.
    """

    number: int
    cells: dict[str, str]
    action: Action = "create"
    id: str | None = None
    changes: list[str] = []
    faults: list[Fault] = []
    hints: list[Fault] = []


class Sheet(msgspec.Struct):
    """A whole file, as it is kept until it is taken over."""

    kind: Kind
    headings: list[Heading]
    rows: list[Row]


def read_sheet(kind: Kind, lines: Sequence[Line]) -> Sheet:
    """Find the headings and return what stands below them; raise Unreadable."""
    known = {
        _plain(text): field
        for field, column in COLUMNS[kind].items()
        for text in (*column.also, column.zh, column.en, field)
    }
    for at, line in enumerate(lines[:_HEADINGS_WITHIN]):
        fields = _fields(line.cells, known)
        if REQUIRED[kind] in fields:
            headings = [
                Heading(text, field) for text, field in zip(line.cells, fields, strict=True) if text
            ]
            rows = [
                Row(one.number, {
                    field: cell
                    for field, cell in zip(fields, one.cells, strict=False)
                    if field is not None and cell
                })
                for one in lines[at + 1 :]
            ]  # fmt: skip
            if not rows:
                raise Unreadable("标题下面没有数据行。", "There is no row below the headings.")
            return Sheet(kind, headings, rows)
    wanted = COLUMNS[kind][REQUIRED[kind]]
    raise Unreadable(
        f"没有找到标题行：至少要有一列“{wanted.zh}”。可以先下载模板。",
        f"No headings were found: a column “{wanted.en}” is needed. Begin with our template.",
    )


def _fields(cells: Iterable[str], known: Mapping[str, str]) -> list[str | None]:
    """Return the field of each heading; of two headings of one field the first counts."""
    fields: list[str | None] = []
    for cell in cells:
        field = known.get(_plain(cell))
        fields.append(None if field in fields else field)
    return fields


def _plain(text: str) -> str:
    """Return a heading without what people write around it: case, spaces, stars, units."""
    text = unicodedata.normalize("NFKC", text).lower()
    return re.sub(r"[\s*:]|\([^)]*\)", "", text.replace("_", ""))


class Faulty(ValueError):
    """A cell that cannot be used, and why, in Chinese and English."""

    def __init__(self, zh: str, en: str) -> None:
        """Keep both."""
        super().__init__(en)
        self.zh, self.en = zh, en


Reader = Callable[[str], Any]


def readers(kind: Kind, today: date) -> Mapping[str, Reader]:
    """Return what reads each field of a kind; each raises Faulty."""
    return _readers(today)[kind]


def read_values(row: Row, read: Mapping[str, Reader]) -> dict[str, Any]:
    """Return what the cells of a row mean, and note in it what cannot be used.

    A field that is not given is left out.
    """
    values: dict[str, Any] = {}
    for field, text in row.cells.items():
        try:
            values[field] = read[field](text)
        except Faulty as fault:
            row.faults.append(Fault(field, fault.zh, fault.en))
    return values


def read_person(row: Row, read: Mapping[str, Reader], today: date) -> dict[str, Any]:
    """Return the same of a resident, whose ID card also tells birthday and sex."""
    values = read_values(row, read)
    _agree_with_card(row, values, today)
    if "contact" not in row.cells and {"contact_phone", "relation"} & row.cells.keys():
        zh = "有联系人的电话或关系，但没有联系人姓名。"
        row.faults.append(
            Fault("contact", zh, "The contact has a number or a relation, but no name.")
        )
    return values


def _agree_with_card(row: Row, values: dict[str, Any], today: date) -> None:
    """Take day of birth and sex from the ID card where they are missing; they may not contradict."""
    if "id_card" not in values:
        return
    card = read_id_card(values["id_card"], today)
    if isinstance(card, CardFault):
        return
    for field, says, zh, en in (
        ("born", card.born, "出生日期", "The day of birth"),
        ("sex", card.sex, "性别", "The sex"),
    ):
        stated = values.get(field)
        if stated in (None, "unknown"):
            values[field] = says
        elif stated != says:
            row.faults.append(Fault(field, f"{zh}与身份证号不符，请核对。",
                                    f"{en} is not that of the ID card: check both."))  # fmt: skip


def _readers(today: date) -> Mapping[Kind, Mapping[str, Reader]]:
    return {
        "residents": {
            "id": _number,
            "name": lambda text: _line(text, "name"),
            "sex": lambda text: _word(text, _SEXES, "性别只能填“男”或“女”。", "Sex is male or female."),
            "born": lambda text: _day(text, today),
            "id_card": lambda text: _card(text, today),
            "phone": _phone,
            "place": lambda text: _line(text, "name"),
            "bed": lambda text: _line(text, "name"),
            "care_level": lambda text: _word(
                text, _LEVELS, "失能等级填 0 到 4，或“轻度失能”这样的说法。",
                "The care level is 0 to 4."),
            "fall_risk": _flag,
            "wander_risk": _flag,
            "contact": lambda text: _line(text, "contact"),
            "relation": lambda text: _line(text, "relation"),
            "contact_phone": _phone,
            "note": lambda text: _line(text, "note"),
        },
        "devices": {
            "id": _device_id,
            "kind": lambda text: _word(
                text, _KINDS, f"没有这种设备类型。可以填：{'、'.join(KIND_WORDS.values())}。",
                f"There is no such kind. Kinds are: {', '.join(KIND_WORDS)}."),
            "name": lambda text: _line(text, "name"),
            "place": lambda text: _line(text, "name"),
            "resident": lambda text: _line(text, "name"),
            "resident_card": lambda text: _card(text, today),
            "resident_id": _number,
        },
    }  # fmt: skip


def _line(text: str, field: str) -> str:
    if text.startswith(_FORMULA):
        raise Faulty(
            "内容以 = + @ 开头，表格软件会当成公式，请改掉。",
            "It begins with = + or @, which a spreadsheet takes for a formula: change it.",
        )
    if any(unicodedata.category(one) == "Cc" and one not in "\n\r\t" for one in text):
        raise Faulty("含有看不见的控制字符。", "It holds characters that cannot be shown.")
    if len(text) > LONGEST[field]:
        raise Faulty(f"最多 {LONGEST[field]} 个字。", f"At most {LONGEST[field]} characters.")
    return text


def _word(text: str, words: Mapping[str, Any], zh: str, en: str) -> Any:  # noqa: ANN401  # by field
    plain = unicodedata.normalize("NFKC", text).strip().lower()
    if plain not in words:
        raise Faulty(zh, en)
    return words[plain]


def _flag(text: str) -> bool:
    found: bool = _word(text, _FLAGS, "只能填“是”或“否”。", "Write yes or no.")
    return found


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,17}", text):
        raise Faulty("编号是平台给的数字；新登记的人请留空。",
                     "The number is the platform's: leave it empty for somebody new.")  # fmt: skip
    return int(text)


def _device_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise Faulty("设备编号只能用字母、数字、- 和 _，最多 64 位。",
                     "A device is called by letters, digits, - and _, at most 64.")  # fmt: skip
    return text


_DAY: Final = re.compile(
    r"([12][0-9]{3})(?:[-/.年]([0-9]{1,2})[-/.月]([0-9]{1,2})日?|([0-9]{2})([0-9]{2}))(?: 0:00(:00)?)?"
)


def _day(text: str, today: date) -> date:
    found = _DAY.fullmatch(unicodedata.normalize("NFKC", text))
    if not found:
        raise Faulty("出生日期请写成 1940-01-23。", "Write the day of birth as 1940-01-23.")
    try:
        day = date(int(found[1]), int(found[2] or found[4]), int(found[3] or found[5]))
    except ValueError as error:
        raise Faulty("没有这一天，请核对出生日期。", "There is no such day: check it.") from error
    if not today.year - 130 <= day.year or day > today:
        raise Faulty("出生日期不合理，请核对。", "This day of birth is not plausible: check it.")
    return day


def _card(text: str, today: date) -> str:
    if _ROUNDED.fullmatch(text):
        raise Faulty(
            "表格软件把号码的后几位变成了 0。请把这一列设为“文本”，再重新填写。",
            "The spreadsheet has lost the last digits: format the column as text and enter it anew.",
        )
    card = read_id_card(text, today)
    if isinstance(card, CardFault):
        raise Faulty(card.zh, card.en)
    return card.number


def _phone(text: str) -> str:
    number = plain_number(text)
    if number is None:
        raise Faulty("电话号码格式不对，例如 13800138000。",
                     "This is no telephone number, for example 13800138000.")  # fmt: skip
    return number


class KnownPlace(msgspec.Struct, frozen=True):
    """A place whose name occurs in a file."""

    id: int
    parent_id: int | None
    kind: str
    name: str
    path: str


class Places:
    """Finds places by what people write: a name, or names from the outer to the inner place."""

    def __init__(self, known: Iterable[KnownPlace], scope_path: str) -> None:
        """Take the places whose names occur; only those under the scope can be chosen."""
        self._by_id = {one.id: one for one in known}
        self._by_name: dict[str, list[KnownPlace]] = {}
        for one in self._by_id.values():
            if one.path.startswith(scope_path):
                self._by_name.setdefault(one.name, []).append(one)

    def find(self, text: str) -> KnownPlace:
        """Return the only place that this can mean; raise Faulty."""
        *outer, name = names_of(text)
        found = [
            one for one in self._by_name.get(name, ())
            if _in_order(outer, [self._name(at) for at in one.path.strip("/").split("/")[:-1]])
        ]  # fmt: skip
        if len(found) == 1:
            return found[0]
        if found:
            raise Faulty(
                f"有 {len(found)} 个地点叫这个名字，请写出上级，例如“康宁养老院/201”。",
                f"{len(found)} places are called so: write the one around it too, as Home/201.",
            )
        raise Faulty(
            "没有这个地点，或不归您管。请先在“地点”里添加。",
            "There is no such place, or it is not yours. Add it under Places first.",
        )

    def bed(self, place: KnownPlace, name: str) -> KnownPlace | None:
        """Return the place of this name right below another, if it is there."""
        return next((one for one in self._by_name.get(name, ()) if one.parent_id == place.id), None)

    def _name(self, id_: str) -> str:
        known = self._by_id.get(int(id_))
        return known.name if known else ""


def names_of(text: str) -> list[str]:
    """Return the names that a written place is made of, the outermost first."""
    return [part.strip() for part in re.split(r"[/／>＞\\]", text) if part.strip()] or [text]


def _in_order(some: Sequence[str], all_: Sequence[str]) -> bool:
    """Tell whether some names occur among all, in the same order."""
    rest = iter(all_)
    return all(one in rest for one in some)
