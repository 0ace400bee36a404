"""How long what is kept: the table of docs/privacy.md, the settings and the statements agree."""

import pytest
from msgspec import structs

from anxin.config import Settings
from anxin.db.pool import blocks
from anxin.errors import SettingError
from anxin.retention import KEPT, days_of
from tests import docs


def test_the_docs_list_every_period_as_the_code_has_it() -> None:
    text = (docs.DOCS / "privacy.md").read_text("utf-8")
    assert docs.replace_part(text, "retention", docs.retention_table()) == text, (
        "run `python -m tests.docs`"
    )


def test_every_statement_that_forgets_belongs_to_a_period() -> None:
    there = {name for name in blocks("upkeep") if name.startswith("forget_")}
    # These two take all their periods at once.
    assert there - {"forget_old", "forget_rollups"} == {one.forgets for one in KEPT if one.forgets}


@pytest.mark.parametrize("days", [0, -1])
def test_a_period_below_a_day_is_refused_before_anything_is_deleted(days: int) -> None:
    for kept in KEPT:
        if kept.setting:
            with pytest.raises(SettingError, match=f"ANXIN_{kept.setting.upper()}"):
                days_of(kept, structs.replace(Settings(), **{kept.setting: days}))
