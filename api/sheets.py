"""Answers that a spreadsheet opens: CSV that it reads as it is meant."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

MARK: Final = "\ufeff"
"""At the beginning it lets spreadsheets read Chinese names as what they are."""
TYPE: Final = "text/csv; charset=utf-8"


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV, without the mark that belongs at the beginning of a file."""
    text = io.StringIO()
    writer = csv.writer(text)
    for row in rows:
        writer.writerow([_cell(one) for one in row])
    return text.getvalue()


def as_file(name: str) -> dict[str, str]:
    """Return the headers of an answer that is kept as a file of this name."""
    return {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}


def _cell(cell: object) -> object:
    """Keep a spreadsheet from taking a text for a formula."""
    if isinstance(cell, datetime):
        return cell.isoformat()
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell else cell
