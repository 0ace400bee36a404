"""Tables that people send as files: CSV as spreadsheets write it, and XLSX. Pure.

A spreadsheet in China saves CSV as GB18030, elsewhere as UTF-8 with or without a mark at the start.
"""

import csv
import io
import zipfile
from datetime import date, datetime
from typing import Final, NamedTuple

import python_calamine

from anxin.errors import AnxinError

MOST_BYTES: Final = 8 * 1024 * 1024
MOST_UNPACKED: Final = 128 * 1024 * 1024
MOST_ROWS: Final = 20_000
MOST_COLUMNS: Final = 60
_EXACT: Final = 2**53
"""Above this a spreadsheet's number has lost digits."""
_ZIP: Final = b"PK\x03\x04"
_OLD_EXCEL: Final = b"\xd0\xcf\x11\xe0"
_MARKS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class Unreadable(AnxinError):
    """This file cannot be read as a table."""

    def __init__(self, zh: str, en: str) -> None:
        """Say why, in Chinese and English."""
        super().__init__(f"{zh} {en}")


class Line(NamedTuple):
    """One row of a table: its number as a spreadsheet counts, and its cells, stripped."""

    number: int
    cells: tuple[str, ...]


def read_table(content: bytes) -> list[Line]:
    """Return the rows of a file that hold anything; raise Unreadable."""
    if len(content) > MOST_BYTES:
        limit = MOST_BYTES // 1024 // 1024
        raise Unreadable(
            f"文件超过 {limit} MB，请分成几个文件。",
            f"A file has at most {limit} MB: split it.",
        )
    if content.startswith(_OLD_EXCEL):
        raise Unreadable(
            "这是旧版 Excel 文件或加密文件，请另存为 .xlsx（不设密码）或 CSV。",
            "This is an old or a protected Excel file: save it as .xlsx without password, or CSV.",
        )
    rows = _workbook(content) if content.startswith(_ZIP) else _csv(content)
    lines = [Line(number, cells) for number, cells in enumerate(rows, 1) if any(cells)]
    if not lines:
        raise Unreadable("文件里没有内容。", "There is nothing in this file.")
    if len(lines) > MOST_ROWS + 1:
        raise Unreadable(
            f"超过 {MOST_ROWS} 行，请分成几个文件。",
            f"A file has at most {MOST_ROWS} rows: split it.",
        )
    return lines


def _csv(content: bytes) -> list[tuple[str, ...]]:
    text = _decoded(content)
    if "\0" in text:
        raise Unreadable("这不是表格文件。", "This is no table.")
    first = text.partition("\n")[0]
    separator = max(",\t;", key=first.count)
    try:
        return [_row(cells) for cells in csv.reader(io.StringIO(text), delimiter=separator)]
    except csv.Error as error:
        raise Unreadable(
            "CSV 格式有误，请用表格软件重新保存。",
            "The CSV is broken: save it again with a spreadsheet.",
        ) from error


def _decoded(content: bytes) -> str:
    marked = [name for mark, name in _MARKS if content.startswith(mark)]
    for name in marked or ["utf-8", "gb18030"]:
        try:
            return content.decode(name)
        except UnicodeDecodeError:
            continue
    raise Unreadable(
        "文字编码无法识别，请另存为“CSV UTF-8”。",
        "The characters cannot be read: save it as “CSV UTF-8”.",
    )


_BROKEN: Final = ("Excel 文件已损坏或有密码。", "The Excel file is damaged or protected.")


def _workbook(content: bytes) -> list[tuple[str, ...]]:
    """Return the rows of the first sheet that is shown."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            unpacked = sum(one.file_size for one in packed.infolist())
        sheet = None if unpacked > MOST_UNPACKED else _first_sheet(content)
    except (python_calamine.CalamineError, zipfile.BadZipFile, OSError, ValueError) as error:
        raise Unreadable(*_BROKEN) from error
    except BaseException as error:
        # What the reader of workbooks calls a panic is no Exception, and only a bad file.
        if type(error).__name__ == "PanicException":
            raise Unreadable(*_BROKEN) from error
        raise
    if sheet is None:
        raise Unreadable("Excel 文件解开后太大。", "Unpacked, the Excel file is too large.")
    return [_row([_text(cell) for cell in row]) for row in sheet]


def _first_sheet(content: bytes) -> list[list[object]]:
    book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(content))
    visible = python_calamine.SheetVisibleEnum.Visible
    shown = [one.name for one in book.sheets_metadata if one.visible == visible]
    if not shown:
        raise ValueError
    # One row more than may be, so that too many are told, and no more are held.
    sheet = book.get_sheet_by_name(shown[0])
    return [list(row) for row in sheet.to_python(skip_empty_area=False, nrows=10 * MOST_ROWS)]


def _row(cells: list[str]) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in cells[:MOST_COLUMNS])


def _text(cell: object) -> str:
    """Return a cell of a workbook as somebody would have typed it."""
    if isinstance(cell, bool):
        return "1" if cell else "0"
    if isinstance(cell, int | float) and float(cell).is_integer():
        return str(int(cell)) if abs(cell) < _EXACT else f"{cell:.5E}"
    if isinstance(cell, datetime):
        return cell.date().isoformat()
    if isinstance(cell, date):
        return cell.isoformat()
    return "" if cell is None else str(cell)
