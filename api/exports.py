# ruff: noqa: E501  # examples in two languages
"""Lists of people and devices as a spreadsheet opens them, in the columns that imports take."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from anxin.db.exports import listed
from anxin.db.places import place
from anxin.db.pool import Database
from anxin.imports import COLUMNS, KIND_WORDS, LEVEL_WORDS, Kind
from api.auth import Grant, may
from api.fields import Id, number
from api.services import Db
from api.sheets import MARK, TYPE, as_file, csv_text

router = APIRouter(prefix="/exports", tags=["imports"])

Language = Literal["zh", "en"]
_SHOWN: Final[dict[Kind, tuple[str, ...]]] = {
    "residents": ("id", "name", "sex", "born", "place", "care_level", "fall_risk", "wander_risk",
                  "note"),
    "devices": ("id", "kind", "name", "place", "resident", "resident_id"),
}  # fmt: skip
"""Numbers of people are not taken out with a list: see /residents/{id}/identity/reveal."""
_BESIDE: Final = {
    "battery": ("电量 %", "Battery %"),
    "rssi": ("信号 dBm", "Signal dBm"),
    "firmware": ("固件版本", "Firmware"),
    "heard_at": ("最近一次上报", "Last heard"),
}
_EXAMPLES: Final[dict[Kind, dict[Language, dict[str, str]]]] = {
    "residents": {
        "zh": {"name": "王秀英", "sex": "女", "born": "1940-01-23", "place": "康宁养老院/201",
               "bed": "1床", "care_level": "中度失能", "contact": "李明", "relation": "儿子",
               "contact_phone": "13800138000"},
        "en": {"name": "Wang Xiuying", "sex": "female", "born": "1940-01-23", "place": "Home/201",
               "bed": "1", "care_level": "2", "contact": "Li Ming", "relation": "son",
               "contact_phone": "13800138000"},
    },
    "devices": {
        "zh": {"id": "mat-0001", "kind": "床垫传感器", "name": "201-1 床垫", "place": "康宁养老院/201",
               "resident": "王秀英"},
        "en": {"id": "mat-0001", "kind": "bed_sensor", "name": "Mat 201-1", "place": "Home/201",
               "resident": "Wang Xiuying"},
    },
}  # fmt: skip
_CSV: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}}
}
Spoken = Annotated[Language, Query(description="Of the headings and words.")]


def _yes(value: bool, lang: Language) -> str:
    return ("是" if value else "否") if lang == "zh" else ("yes" if value else "no")


_AS_TEXT: Final[Mapping[str, Callable[[Any, Language], object]]] = {
    "sex": lambda value, lang: (
        {"male": "男", "female": "女", "unknown": "未知"}[value] if lang == "zh" else value
    ),
    "care_level": lambda value, lang: LEVEL_WORDS[value] if lang == "zh" else value,
    "fall_risk": _yes,
    "wander_risk": _yes,
    "kind": lambda value, lang: KIND_WORDS[value] if lang == "zh" else value,
}


@router.get("/{kind}", response_class=Response, responses=_CSV)
async def export_list(
    kind: Kind,
    grant: Annotated[Grant, may("export")],
    database: Db,
    place_id: Id | None = None,
    lang: Spoken = "zh",
) -> Response:
    """Return residents or devices as CSV; changed by hand, it can be imported again."""
    if place_id is not None:
        await place(database, grant.scope, int(place_id))
    rows = _rows(database, grant, kind, number(place_id), lang)
    return StreamingResponse(rows, media_type=TYPE, headers=as_file(f"{kind}.csv"))


@router.get("/{kind}/template", response_class=Response, responses=_CSV)
async def get_template(
    kind: Kind, _: Annotated[Grant, may("imports.write")], lang: Spoken = "zh"
) -> Response:
    """Return an empty list to fill in: the headings that imports know, and one row of example."""
    columns = [name for name in COLUMNS[kind] if name != "id" or kind == "devices"]
    example = _EXAMPLES[kind][lang]
    table = [
        [_heading(kind, name, lang) for name in columns],
        [example.get(name, "") for name in columns],
    ]
    headers = as_file(f"{kind}-template.csv")
    return Response(MARK + csv_text(table), media_type=TYPE, headers=headers)


async def _rows(
    database: Database, grant: Grant, kind: Kind, place_id: int | None, lang: Language
) -> AsyncIterator[str]:
    beside = _BESIDE if kind == "devices" else {}
    at = 0 if lang == "zh" else 1
    headings = [_heading(kind, name, lang) for name in _SHOWN[kind]]
    yield MARK + csv_text([[*headings, *(words[at] for words in beside.values())]])
    names = (*_SHOWN[kind], *beside)
    async for rows in listed(database, grant.scope, kind, place_id=place_id):
        yield csv_text([[_text(name, row[name], lang) for name in names] for row in rows])


def _heading(kind: Kind, name: str, lang: Language) -> str:
    column = COLUMNS[kind][name]
    return column.zh if lang == "zh" else column.en


def _text(name: str, value: Any, lang: Language) -> object:  # noqa: ANN401  # a cell of any column
    if value is None:
        return ""
    told = _AS_TEXT.get(name)
    return told(value, lang) if told else value
